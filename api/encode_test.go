package api

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fill gives every field below v a value that is not zero.
func fill(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *metav1.Time:
		*x = metav1.NewTime(time.Date(2024, 1, 2, 3, 4, 5, 0, time.Local))
		return
	case *metav1.FieldsV1:
		x.SetRawString(`{"f:a":{}}`)
		return
	case *Port:
		*x = Port{First: 1, Last: 2}
		return
	case *Protocol:
		*x = Protocol{Name: "TCP"}
		return
	case *FelixConfigurationSpec:
		*x = FelixConfigurationSpec{}
		for _, f := range FelixFields() {
			value := reflect.New(f.typ.goType).Elem()
			fill(value)
			(*x)[f.Name] = value.Interface()
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key").Convert(v.Type().Key()), e)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	default:
		switch {
		case v.CanInt():
			v.SetInt(7)
		case v.CanUint():
			v.SetUint(8)
		case v.CanFloat():
			v.SetFloat(9.5)
		}
	}
}

func filled(k KindInfo) Object {
	o := k.New()
	fill(reflect.ValueOf(o).Elem())
	setType(o, k.APIVersion, k.Kind)
	return o
}

// clearUnreadable takes away what is not written.
func clearUnreadable(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			clearUnreadable(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			clearUnreadable(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			switch f := v.Type().Field(i); {
			case f.Name == "Unreadable" || f.Name == "Partial" || f.Name == "Foreign" || f.Name == "NodeSelector" && v.Type() == reflect.TypeFor[EntityRule]():
				v.Field(i).SetZero()
			case f.IsExported():
				clearUnreadable(v.Field(i))
			}
		}
	}
}

// Every field of every kind is written, and read back by the strict and by the lenient decoder.
func TestEncodeKeepsEveryField(t *testing.T) {
	for _, k := range Kinds() {
		t.Run(k.Kind, func(t *testing.T) {
			o := filled(k)
			clearUnreadable(reflect.ValueOf(o))
			for format, encode := range map[string]func(Object) ([]byte, error){"JSON": Encode, "YAML": EncodeYAML} {
				b, err := encode(o)
				if err != nil {
					t.Fatal(err)
				}
				back, err := Decode(b)
				if err != nil {
					t.Fatalf("%s %s: %v", format, b, err)
				}
				if diff := cmp.Diff(o, back[0]); diff != "" {
					t.Errorf("%s (-want +got):\n%s", format, diff)
				}
			}
			b, err := Encode(o)
			if err != nil {
				t.Fatal(err)
			}
			back, problems, err := readStored(k, b)
			if err != nil || len(problems) > 0 {
				t.Fatal(problems, err)
			}
			if diff := cmp.Diff(o, back); diff != "" {
				t.Errorf("stored (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEncodeIsTidy(t *testing.T) {
	p := &NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "prod", Labels: map[string]string{"b": "2", "a": "1"}},
		Spec: NetworkPolicySpec{Selector: "a == 'b' && c != '<>'", Ingress: []Rule{
			{Action: Allow, Protocol: &Protocol{Number: 47}, Destination: EntityRule{Ports: []Port{{First: 80, Last: 80}, {First: 1, Last: 9}, {Name: "http"}}}}}},
	}
	const want = `{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"web","namespace":"prod","labels":{"a":"1","b":"2"}},` +
		`"spec":{"ingress":[{"action":"Allow","protocol":47,"destination":{"ports":[80,"1:9","http"]}}],"selector":"a == 'b' && c != '<>'"}}`
	for range 10 {
		b, err := Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(b)); diff != "" {
			t.Fatal(diff)
		}
	}
	if p.Kind != "" {
		t.Error("the object itself was changed")
	}
	const wantYAML = `apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  labels:
    a: "1"
    b: "2"
  name: web
  namespace: prod
spec:
  ingress:
  - action: Allow
    destination:
      ports:
      - 80
      - "1:9"
      - http
    protocol: 47
  selector: a == 'b' && c != '<>'
`
	b, err := EncodeYAML(p)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantYAML, string(b)); diff != "" {
		t.Error(diff)
	}
}

type strangeKind struct{ Tier }

func (*strangeKind) GetKind() string { return "Strange" }

func TestEncodeRefusesUnknownKinds(t *testing.T) {
	for _, encode := range []func(Object) ([]byte, error){Encode, EncodeYAML} {
		if _, err := encode(&strangeKind{}); err == nil || !strings.Contains(err.Error(), "encoding Strange/") {
			t.Error(err)
		}
	}
	order := Tier{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	nan := 0.0
	nan /= nan
	order.Spec.Order = &nan
	if _, err := Encode(&order); err == nil {
		t.Error("NaN was encoded")
	}
}

// shares reports whether a and b have a pointer, slice or map in common.
func shares(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer:
		if a.IsNil() || a.Type() == reflect.TypeFor[*time.Location]() {
			return false
		}
		return a.Pointer() == b.Pointer() || shares(a.Elem(), b.Elem())
	case reflect.Map:
		if a.IsNil() {
			return false
		}
		for it := a.MapRange(); it.Next(); {
			if shares(it.Value(), b.MapIndex(it.Key())) {
				return true
			}
		}
		return a.Pointer() == b.Pointer()
	case reflect.Interface:
		return !a.IsNil() && shares(a.Elem(), b.Elem())
	case reflect.Slice:
		if a.Len() == 0 {
			return false
		}
		if a.Pointer() == b.Pointer() {
			return true
		}
		for i := range a.Len() {
			if shares(a.Index(i), b.Index(i)) {
				return true
			}
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if shares(a.Field(i), b.Field(i)) {
				return true
			}
		}
	}
	return false
}

func TestDeepCopy(t *testing.T) {
	for _, k := range Kinds() {
		o := filled(k)
		c := DeepCopy(o)
		if diff := cmp.Diff(o, c); diff != "" {
			t.Errorf("%s (-want +got):\n%s", k.Kind, diff)
		}
		if shares(reflect.ValueOf(o).Elem(), reflect.ValueOf(c).Elem()) {
			t.Errorf("%s shares memory with its copy", k.Kind)
		}
	}
	if diff := cmp.Diff(&Tier{}, DeepCopy(&Tier{})); diff != "" {
		t.Error(diff)
	}
}

func BenchmarkDeepCopy(b *testing.B) {
	o, _, err := DecodeStored("NetworkPolicy", []byte(storedPolicy))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		DeepCopy(o)
	}
}

func TestProtocol(t *testing.T) {
	for in, want := range map[string]Protocol{
		`"TCP"`: {Name: "TCP"}, `"icmpv6"`: {Name: "icmpv6"}, `6`: {Number: 6}, `"17"`: {Number: 17}, `255`: {Number: 255}, `"odd"`: {Name: "odd"},
	} {
		var p Protocol
		if err := json.Unmarshal([]byte(in), &p); err != nil || p != want {
			t.Errorf("%s gives %+v, %v", in, p, err)
		}
	}
	for _, in := range []string{`256`, `-1`, `6.5`, `1e1`, `true`, `[]`, `{}`, `"`, ``} {
		if err := new(Protocol).UnmarshalJSON([]byte(in)); err == nil {
			t.Errorf("%s was read", in)
		}
	}
	for in, want := range map[Protocol]string{
		{Name: "tcp"}: "TCP", {Number: 6}: "TCP", {Number: 17}: "UDP", {Number: 1}: "ICMP", {Name: "ICMPV6"}: "ICMPv6",
		{Number: 132}: "SCTP", {Name: "udplite"}: "UDPLite", {Number: 47}: "47", {Name: "odd"}: "odd", {}: "0",
	} {
		if got := canonicalProtocol(in).String(); got != want {
			t.Errorf("%+v is spelt %s, want %s", in, got, want)
		}
		if a, okA := in.Num(); okA {
			if b, okB := canonicalProtocol(in).Num(); a != b || !okB {
				t.Errorf("%+v changed to %d", in, b)
			}
		}
	}
	b, err := json.Marshal([]Protocol{{Name: "TCP"}, {Number: 6}})
	if err != nil || string(b) != `["TCP",6]` {
		t.Errorf("%s, %v", b, err)
	}
}

func TestPort(t *testing.T) {
	for in, want := range map[string]Port{
		`80`: {First: 80, Last: 80}, `"80"`: {First: 80, Last: 80}, `"1:2"`: {First: 1, Last: 2}, `"http"`: {Name: "http"},
		`0`: {}, `65535`: {First: 65535, Last: 65535}, `"8a"`: {Name: "8a"},
	} {
		var p Port
		if err := json.Unmarshal([]byte(in), &p); err != nil || p != want {
			t.Errorf("%s gives %+v, %v", in, p, err)
		}
		b, err := json.Marshal(want)
		var back Port
		if err != nil || json.Unmarshal(b, &back) != nil || back != want {
			t.Errorf("%+v was written as %s and read as %+v, %v", want, b, back, err)
		}
	}
	for _, in := range []string{`65536`, `-1`, `80.5`, `8e1`, `"2:1"`, `"1:"`, `":1"`, `":"`, `"1:2:3"`, `"a:b"`, `""`, `"1:65536"`, `true`, `null`, `[80]`} {
		if err := new(Port).UnmarshalJSON([]byte(in)); err == nil {
			t.Errorf("%s was read", in)
		}
	}
}
