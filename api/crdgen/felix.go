package crdgen

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/tortie/tortie/api"
)

// felix makes the schema of a FelixConfiguration's spec from the table of its settings.
func (g *generator) felix() (*Schema, error) {
	s := &Schema{Type: "object", Properties: map[string]*Schema{}}
	for _, f := range api.FelixFields() {
		p, err := g.setting(f)
		if err != nil {
			return nil, fmt.Errorf("setting %s: %w", f.Name, err)
		}
		p.Description = settingAbout(f)
		s.Properties[f.Name] = p
	}
	cel("routeTableRanges has taken the place of routeTableRange; give only that", "!has(self.routeTableRange) || !has(self.routeTableRanges)")(s)
	return s, nil
}

func settingAbout(f api.FelixField) string {
	text := strings.ToUpper(f.Values[:1]) + f.Values[1:] + "."
	switch f.Effect {
	case api.Ignored:
		return text + " No effect: " + f.Reason + "."
	case api.Refused:
		return text + " Refused: " + f.Reason + "."
	}
	return text + " " + strings.ToUpper(f.Reason[:1]) + f.Reason[1:] + "."
}

func (g *generator) setting(f api.FelixField) (*Schema, error) {
	l := f.Limits()
	p, err := g.schema(l.Type)
	if err != nil {
		return nil, err
	}
	if l.Bounded {
		between(float64(l.Min), float64(l.Max))(p)
	}
	if l.Enum != nil {
		words(l.Enum...)(p)
	}
	if l.Pattern != "" {
		pattern(whole(l.Pattern))(p)
	}
	if l.Like != "" {
		like, ok := settingLike()[l.Like]
		if !ok {
			return nil, fmt.Errorf("nothing is known of %q", l.Like)
		}
		like(p)
	}
	if l.Only != "" {
		only(l.Only, f.Reason)(p)
	}
	return p, nil
}

// only leaves one value: the setting asks for what is not there.
func only(value, reason string) tweak {
	return func(s *Schema) {
		switch {
		case s.Type == "boolean":
			cel(reason, "self == %s", value)(s)
		case reflect.DeepEqual(s.Rules, durationRules()):
			cel(reason, "duration(self) == duration('%s')", value)(s)
		default:
			cel(reason, "self == '' || self == '%s'", value)(s)
		}
	}
}

func durationRules() []Rule {
	s := &Schema{}
	notNegative()(s)
	return s.Rules
}

func settingLike() map[string]tweak {
	portRange := all(func(s *Schema) { s.Minimum = num(0) },
		pattern(whole(decimal(0, 65535)+`(?::`+decimal(0, 65535)+`)?`)))
	var masks []string
	for bit := range 32 {
		masks = append(masks, fmt.Sprint(uint64(1)<<bit))
	}
	return map[string]tweak{
		"selector":   oneSelector(),
		"regexp":     regexps(),
		"IPv4":       address(4),
		"IPv6":       address(6),
		"interface":  interfaceName(),
		"prefixes":   items(prefixes()),
		"interfaces": items(pattern(`^[a-zA-Z0-9:._+-]{1,15}$`)),
		"range":      portRange,
		"ranges":     all(maxItems(7), items(portRange)),
		"marks":      all(between(1, 4294967295), cel("must have two bits or more", "!(self in [%s])", strings.Join(masks, ", "))),
		"tables":     property("max", func(s *Schema) { s.Maximum = num(250) }),
		"table ranges": all(maxItems(1024), items(property("max", func(s *Schema) { s.Maximum = num(4294967295) })),
			cel("names more than 65535 tables", "self.map(r, r.max - r.min + 1).sum() <= 65535")),
		"conntrack": all(func(s *Schema) { s.MaxProperties = count(8) },
			cel("must be creationGracePeriod, tcpSynSent, tcpEstablished, tcpFinsSeen, tcpResetSeen, udpTimeout, genericTimeout or icmpTimeout",
				"self.all(k, k.lowerAscii() in ['creationgraceperiod', 'tcpsynsent', 'tcpestablished', 'tcpfinsseen', 'tcpresetseen', 'udptimeout', 'generictimeout', 'icmptimeout'])"),
			func(s *Schema) {
				cel("must be a duration like 1m30s, or Auto", "self == 'Auto' || duration(self) >= duration('0s')")(s.AdditionalProperties)
			}),
		"DSCP": all(between(0, 63), pattern(whole(decimal(0, 63)+`|(?i:DF|LE|EF|VA|CS[0-7]|AF[1-4][1-3])`))),
	}
}
