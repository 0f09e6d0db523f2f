package api

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const storedBlock = `{"kind":"IPAMBlock","apiVersion":"projectcalico.org/v3","metadata":{"name":"10-65-1-0-30"},"spec":{` +
	`"cidr":"10.65.1.0/30","affinity":"host:n1","strictAffinity":false,"allocations":[0,null,1,2],"unallocated":[1],` +
	`"attributes":[{"handle_id":"h0","secondary":{"namespace":"prod","pod":"web-0","u":"0J5sWjrwQ6OVjZhkPZBV5A"}},` +
	`{"releasedAt":"2026-11-02T08:00:00Z"},{"handle_id":"h2","secondary":{"node":"n2","pod":"web-1","uid":"own"}}],` +
	`"sequenceNumber":9,"sequenceNumberForAllocation":{"0":3,"3":9}}}`

func TestBlockInAndOut(t *testing.T) {
	o, problems, err := DecodeStored("IPAMBlock", []byte(storedBlock))
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	b := o.(*IPAMBlock)
	if diff := cmp.Diff(Allocations{0, Free, 1, 2}, b.Spec.Allocations); diff != "" {
		t.Error(diff)
	}
	out, err := Encode(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(storedBlock, string(out)); diff != "" {
		t.Errorf("written back (-want +got):\n%s", diff)
	}
}

func TestOwners(t *testing.T) {
	o, _, err := DecodeStored("IPAMBlock", []byte(storedBlock))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Owner{}
	for a, owner := range o.(*IPAMBlock).Owners() {
		got[a.String()] = owner
	}
	want := map[string]Owner{ // 10.65.1.2 is nobody's for a while
		"10.65.1.0": {Namespace: "prod", Pod: "web-0", UID: "d09e6c5a-3af0-43a3-958d-98643d9055e4", Node: "n1"},
		"10.65.1.3": {Pod: "web-1", UID: "own", Node: "n2"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
	for a := range o.(*IPAMBlock).Owners() {
		if a != netip.MustParseAddr("10.65.1.0") {
			t.Errorf("begins with %s", a)
		}
		break
	}
}

func TestOwnerAttributes(t *testing.T) {
	for _, o := range []Owner{
		{},
		{Namespace: "a", Pod: "b", UID: "d09e6c5a-3af0-43a3-958d-98643d9055e4", Node: "n1", Type: "vxlanTunnelAddress"},
		{Pod: "b", UID: "D09E6C5A-3AF0-43A3-958D-98643D9055E4", Node: "n2"},
		{UID: "d09e6c5a3af043a3958d98643d9055e4", Node: "n2"},
		{UID: "0J5sWjrwQ6OVjZhkPZBV5A", Node: "n2"},
	} {
		for _, affinity := range []string{"host:n1", "host:other", "virtual:n1", ""} {
			want := o
			if o.Node == "" && affinity != "" && affinity[0] == 'h' {
				want.Node = affinity[len("host:"):]
			}
			if diff := cmp.Diff(want, OwnerOf(o.Attributes(affinity), affinity)); diff != "" {
				t.Errorf("%+v in a block of %q (-want +got):\n%s", o, affinity, diff)
			}
		}
	}
}

func TestDamagedBlock(t *testing.T) {
	for name, data := range map[string]string{
		"free and allocated": `{"metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/32","allocations":[0],"unallocated":[0],"attributes":[{}]}}`,
		"unknown of its attributes": `{"metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/32","allocations":[0],"unallocated":[],` +
			`"attributes":[{"handle_id":"a","lease":"x"}]}}`,
		"bad index": `{"metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/32","allocations":[7],"unallocated":[],"attributes":[]}}`,
	} {
		if o, _, err := DecodeStored("IPAMBlock", []byte(data)); err == nil {
			t.Errorf("%s: is read as %+v", name, o)
		}
	}
	if _, problems, err := DecodeStored("IPAMBlock", []byte(`{"metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/32","allocations":[null],`+
		`"unallocated":[0],"attributes":[],"news":1}}`)); err != nil || len(problems) != 1 {
		t.Errorf("an unknown field: %v, %v; want a problem and no error", problems, err)
	}
}
