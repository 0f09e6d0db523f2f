package api

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The rules that are mutated use every field of a rule.
const fullPolicy = `{"metadata":{"name":"p","namespace":"n","labels":{"a":"b"}},"spec":{"tier":"default","order":5,"selector":"has(x)",
"types":["Ingress","Egress"],"serviceAccountSelector":"has(s)","ingress":[
{"action":"Allow","ipVersion":4,"protocol":"TCP","notProtocol":"SCTP","source":{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"],
 "selector":"a == 'b'","notSelector":"has(c)","namespaceSelector":"has(n)","ports":[1,"2:3","web"],"notPorts":[2],
 "serviceAccounts":{"names":["x"],"selector":"has(y)"}},
 "destination":{"ports":["http",80]},"http":{"methods":["GET"],"paths":[{"exact":"/a"},{"prefix":"/b"}]},"metadata":{"annotations":{"k":"v"}}},
{"action":"Deny","protocol":"ICMP","icmp":{"type":8,"code":0},"notICMP":{"type":3}},
{"action":"Allow","protocol":"UDP","source":{"services":{"name":"dns"}}}],
"egress":[{"action":"Pass","protocol":17,"destination":{"notNets":["fd00::/64"],"notPorts":["53"]}},
{"action":"Allow","destination":{"services":{"name":"web","namespace":"m"}}},{"action":"Log"}]}}`

// every gathers v and all values below it.
func every(v *value) []*value {
	all := []*value{v}
	for _, m := range v.fields {
		all = append(all, every(m.value)...)
	}
	for _, item := range v.items {
		all = append(all, every(item)...)
	}
	return all
}

func clone(v *value) *value {
	c := *v
	c.fields, c.items = nil, nil
	for _, m := range v.fields {
		c.fields = append(c.fields, member{m.name, clone(m.value)})
	}
	for _, item := range v.items {
		c.items = append(c.items, clone(item))
	}
	return &c
}

// mutate changes one place below v.
func mutate(v *value, r *rand.Rand) {
	all := every(v)
	x := all[r.IntN(len(all))]
	names := []string{"selector", "nets", "notNets", "source", "destination", "action", "ports", "x", "SELECTOR", "namespace", "type", ""}
	odd := []*value{
		{kind: nullValue}, {kind: boolValue, text: "true"}, {kind: numberValue, text: "0"}, {kind: numberValue, text: "-1.5e3"},
		{kind: numberValue, text: "65536"}, {kind: textValue}, {kind: textValue, text: "all()"}, {kind: textValue, text: "0.0.0.0/0"},
		{kind: textValue, text: "Allow"}, {kind: textValue, text: "global()"}, {kind: listValue}, {kind: objectValue},
		{kind: listValue, items: []*value{{kind: nullValue}}}, {kind: objectValue, fields: []member{{"x", &value{kind: nullValue}}}},
	}
	switch {
	case x.kind == objectValue && len(x.fields) > 0 && r.IntN(2) == 0:
		m := &x.fields[r.IntN(len(x.fields))]
		switch r.IntN(4) {
		case 0:
			m.name = names[r.IntN(len(names))]
		case 1:
			x.fields = append(x.fields, member{m.name, clone(all[r.IntN(len(all))])})
		case 2:
			x.fields = append(x.fields, member{names[r.IntN(len(names))], odd[r.IntN(len(odd))]})
		case 3:
			m.name += "s"
		}
	case x.kind == listValue && r.IntN(2) == 0:
		x.items = append(x.items, odd[r.IntN(len(odd))])
	case x.kind == textValue && len(x.text) > 0 && r.IntN(2) == 0:
		i := r.IntN(len(x.text))
		x.text = x.text[:i] + string(rune('!'+r.IntN(90))) + x.text[i+r.IntN(2):]
	default:
		*x = *odd[r.IntN(len(odd))]
	}
}

// plain turns v into Go values in which spellings that mean the same are equal, and what says nothing (null, false,
// empty) is left out. repeated says that an object below v has a field twice.
func plain(v *value, field string) (out any, repeated bool) {
	switch v.kind {
	case nullValue:
		return nil, false
	case listValue:
		list := []any{}
		for _, item := range v.items {
			p, twice := plain(item, field)
			repeated = repeated || twice
			list = append(list, p)
		}
		if len(list) == 0 {
			return nil, repeated
		}
		return list, repeated
	case objectValue:
		m := map[string]any{}
		for _, f := range v.fields {
			if _, ok := m[f.name]; ok {
				repeated = true
				continue
			}
			p, twice := plain(f.value, f.name)
			repeated = repeated || twice
			m[f.name] = p
		}
		for k, p := range m {
			if p == nil {
				delete(m, k)
			}
		}
		if len(m) == 0 {
			return nil, repeated
		}
		return m, repeated
	}
	return plainScalar(v, field), false
}

func plainScalar(v *value, field string) any {
	text := v.text
	if v.kind == boolValue && text == "false" || v.kind == textValue && text == "" {
		return nil
	}
	switch field {
	case "protocol", "notProtocol":
		var p Protocol
		if json.Unmarshal(v.appendJSON(nil), &p) == nil {
			text = canonicalProtocol(p).String()
		}
		return text
	case "ports", "notPorts":
		if p, err := ParsePort(text); err == nil {
			text = p.String()
		}
		return text
	case "nets", "notNets":
		if p, err := ParsePrefix(text); err == nil {
			text = p.String()
		}
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && v.kind == numberValue {
		text = strconv.FormatFloat(f, 'g', -1, 64)
	}
	return fmt.Sprintf("%d %s", v.kind, text)
}

func reencode(t *testing.T, x any) *value {
	t.Helper()
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	v, err := parseJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkMutated proves that nothing that was stored has been passed over: each rule that is not marked says exactly what
// its JSON says, no more and no less, and so does the rest of the spec if there is such a rule.
func checkMutated(t *testing.T, doc *value) {
	text := string(doc.appendJSON(nil))
	o, problems, err := DecodeStored("NetworkPolicy", []byte(text))
	if err != nil {
		if !slices.ContainsFunc(problems, func(p Problem) bool {
			return under(p.Path, "metadata", "spec.selector", "spec.serviceAccountSelector", "spec.tier", "spec.order") || p.Path == "spec"
		}) && doc.get("kind") == nil && doc.kind == objectValue {
			t.Fatalf("%s\nis refused without need: %v", text, err)
		}
		return
	}
	spec := doc.get("spec")
	if spec == nil || spec.kind == nullValue {
		spec = &value{kind: objectValue}
	}
	p := o.(*NetworkPolicy)
	marked := checkRules(t, text, spec.get("ingress"), p.Spec.Ingress) && checkRules(t, text, spec.get("egress"), p.Spec.Egress)
	if marked {
		return
	}
	rest := &value{kind: objectValue}
	for _, m := range spec.fields {
		if !slices.Contains([]string{"ingress", "egress", "performanceHints"}, m.name) {
			rest.fields = append(rest.fields, m)
		}
	}
	want, repeated := plain(rest, "")
	kept := p.Spec
	kept.Ingress, kept.Egress, kept.PerformanceHints = nil, nil, nil
	got, _ := plain(reencode(t, kept), "")
	defaults(want, got)
	if diff := cmp.Diff(want, got); diff != "" || repeated {
		t.Fatalf("%s\nhas a rule that is not marked, but the spec says something else:\n%s", text, diff)
	}
}

// defaults takes from got what want did not give.
func defaults(want, got any) {
	w, _ := want.(map[string]any)
	g, _ := got.(map[string]any)
	for _, name := range []string{"types", "tier"} {
		if w[name] == nil {
			delete(g, name)
		}
	}
}

// checkRules says whether all rules are marked.
func checkRules(t *testing.T, text string, list *value, rules []Rule) (marked bool) {
	t.Helper()
	if list == nil || list.kind == nullValue {
		if len(rules) > 0 {
			t.Fatalf("%s\nhas rules from nowhere: %+v", text, rules)
		}
		return true
	}
	if list.kind != listValue {
		if len(rules) != 1 || rules[0].Action != Deny || rules[0].Unreadable == nil || !cmp.Equal(rules[0].Source, EntityRule{}) {
			t.Fatalf("%s\nhas rules that are no list, which gave %+v", text, rules)
		}
		return true
	}
	if len(rules) != len(list.items) {
		if len(rules) == 1 && rules[0].Action == Deny && rules[0].Unreadable != nil {
			return true // the list was given twice
		}
		t.Fatalf("%s\nhas %d rules, of which %d are left", text, len(list.items), len(rules))
	}
	marked = true
	for i, r := range rules {
		if r.Unreadable != nil {
			continue
		}
		marked = false
		want, repeated := plain(list.items[i], "")
		got, _ := plain(reencode(t, r), "")
		if diff := cmp.Diff(want, got); diff != "" || repeated {
			t.Fatalf("%s\nrule %d is not marked, but says something else (repeated fields: %v; -stored +decoded):\n%s", text, i, repeated, diff)
		}
	}
	return marked
}

func runMutations(t *testing.T, seed uint64, n int) {
	doc, err := parseJSON([]byte(fullPolicy))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		mutate(doc, r)
		if strings.Count(string(doc.appendJSON(nil)), "{") > 2000 {
			return
		}
		checkMutated(t, doc)
	}
}

func TestMutatedRulesAreMarked(t *testing.T) {
	doc, err := parseJSON([]byte(fullPolicy))
	if err != nil {
		t.Fatal(err)
	}
	if o, problems, err := DecodeStored("NetworkPolicy", []byte(fullPolicy)); err != nil || len(problems) > 0 {
		t.Fatalf("the policy to mutate is not valid: %v, %v, %v", o, problems, err)
	}
	checkMutated(t, doc)
	for seed := range uint64(500) {
		runMutations(t, seed, 1+int(seed%3))
	}
}

func FuzzMutatedRules(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint8(seed%5))
	}
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) { runMutations(t, seed, int(n%6)) })
}
