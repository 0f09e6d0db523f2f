package api

import (
	"net/netip"
	"reflect"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// FelixConfigurationSpec holds settings by their names. The types of the values are those of the table in
// felix_fields.go: there are some 190 settings, of which few concern Tortie, and one table says all about each.
type FelixConfigurationSpec map[string]any

// ProtoPort is a failsafe: traffic of the host that no policy stops.
type ProtoPort struct {
	Protocol string `json:"protocol,omitempty"` // TCP (default), UDP or SCTP, in any case
	Port     uint16 `json:"port"`
	Net      string `json:"net,omitempty"` // of the far end
}

// RouteTableRange is a range of numbers of the kernel's routing tables.
type RouteTableRange struct {
	Min int64 `json:"min"`
	Max int64 `json:"max"`
}

// HealthTimeout is how long a part of Felix may be silent.
type HealthTimeout struct {
	Name    string   `json:"name"`
	Timeout Duration `json:"timeout"`
}

// Failsafe is a ProtoPort as drivers want it. The zero Net means anywhere.
type Failsafe struct {
	Proto uint8
	Port  uint16
	Net   netip.Prefix
}

// readTree reads each setting as the type that the table gives it. What does not fit is left out.
func (s *FelixConfigurationSpec) readTree(r *reader, p *field.Path, v *value) (ok bool) {
	*s = nil
	if v.kind != objectValue {
		r.problem(p, v, "must be an object, not %s", v)
		return false
	}
	ok = true
	seen := map[string]bool{}
	for _, m := range v.fields {
		child := p.Child(m.name)
		f, known := felixField(m.name)
		switch {
		case seen[m.name]:
			r.problem(child, m.value, "given twice")
			continue
		case !known:
			r.problem(child, m.value, "unknown field%s", didYouMean(m.name, felixIndex))
		case m.value.kind == nullValue:
		default:
			into := reflect.New(f.typ.goType).Elem()
			if !r.read(child, m.value, into) {
				ok = false
				break
			}
			if *s == nil {
				*s = FelixConfigurationSpec{}
			}
			(*s)[m.name] = into.Interface()
		}
		seen[m.name] = true
	}
	return ok
}

// UnmarshalJSON is strict, and stops at the first problem.
func (s *FelixConfigurationSpec) UnmarshalJSON(b []byte) error {
	v, err := parseJSON(b)
	if err != nil || v.kind == nullValue {
		*s = nil
		return err
	}
	r := reader{}
	s.readTree(&r, nil, v)
	if len(r.problems) > 0 {
		return r.problems[0].Problem
	}
	return nil
}
