package api

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		o    Object
		want []string // paths
	}{
		{&NetworkPolicy{}, nil},
		{&NetworkPolicy{Spec: NetworkPolicySpec{PerformanceHints: []string{"AssumeNeededOnEveryNode"}}}, []string{"spec.performanceHints"}},
		{&StagedNetworkPolicy{Spec: StagedNetworkPolicySpec{NetworkPolicySpec: NetworkPolicySpec{PerformanceHints: []string{"a"}}}}, []string{"spec.performanceHints"}},
		{&WorkloadEndpoint{Spec: WorkloadEndpointSpec{Ports: []EndpointPort{{Name: "a"}, {HostPort: 80, HostIP: "192.0.2.1"}}, QoSControls: &QoSControls{}}},
			[]string{"spec.qosControls", "spec.ports[1].hostPort", "spec.ports[1].hostIP"}},
		{&Node{}, nil},
		{&IPPool{Spec: IPPoolSpec{IPIPMode: "Never", VXLANMode: ""}}, nil},
		{&IPPool{Spec: IPPoolSpec{IPIPMode: "Always", DisableBGPExport: true}}, []string{"spec.ipipMode", "spec.disableBGPExport"}},
		{&IPPool{Spec: IPPoolSpec{VXLANMode: "CrossSubnet"}}, []string{"spec.vxlanMode"}},
		{&Node{Spec: NodeSpec{BGP: &NodeBGPSpec{ASNumber: new(ASNumber)}}}, []string{"spec.bgp.asNumber"}},
		{&BGPPeer{}, []string{""}},
		{&FelixConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}, []string{""}},
		{&FelixConfiguration{Spec: FelixConfigurationSpec{"bpfEnabled": true, "vxlanPort": int64(5)}}, []string{"spec.bpfEnabled"}},
	} {
		var got []string
		for _, p := range Warnings(c.o) {
			got = append(got, p.Path)
			if !strings.HasPrefix(p.Reason, "has no effect") && !strings.HasPrefix(p.Reason, "there are no tunnels yet") {
				t.Errorf("%s: %s", c.o.GetKind(), p)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.o.GetKind(), diff)
		}
	}
}

// Each row of the table names a kind and a field that there are.
func TestEffectlessFieldsExist(t *testing.T) {
	for _, e := range effectlessFields {
		k, ok := KindByName(e.kind)
		found := e.path == ""
		if ok && !found {
			given(reflect.ValueOf(filled(k)), nil, strings.Split(e.path, "."), func(*field.Path) { found = true })
		}
		if !ok || !found || e.reason == "" {
			t.Errorf("there is no %s of %s", e.path, e.kind)
		}
	}
}

func TestValidateUpdate(t *testing.T) {
	pool := func(cidr string, size int) Object { return &IPPool{Spec: IPPoolSpec{CIDR: cidr, BlockSize: size}} }
	cluster := func(guid string) Object { return &ClusterInformation{Spec: ClusterInformationSpec{ClusterGUID: guid}} }
	for _, c := range []struct {
		from, to Object
		want     []string
	}{
		{pool("10.0.0.0/16", 26), pool("10.0.0.0/16", 26), nil},
		{pool("10.0.0.0/16", 26), pool("10.1.0.0/16", 27), []string{"spec.cidr", "spec.blockSize"}},
		{cluster(""), cluster("a"), nil},
		{cluster("a"), cluster("b"), []string{"spec.clusterGUID"}},
		{&Tier{}, &Tier{Spec: TierSpec{Order: new(float64)}}, nil},
	} {
		var got []string
		for _, e := range ValidateUpdate(c.from, c.to) {
			got = append(got, e.Field)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v to %+v (-want +got):\n%s", c.from, c.to, diff)
		}
	}
}

func TestValidateDelete(t *testing.T) {
	for _, b := range BuiltinTiers() {
		if len(ValidateDelete(b)) == 0 {
			t.Errorf("the tier %s can be deleted", b.Name)
		}
	}
	if len(ValidateDelete(BuiltinProfiles()[0])) == 0 {
		t.Error("the profile of automatic host endpoints can be deleted")
	}
	for _, o := range []Object{&Tier{ObjectMeta: metav1.ObjectMeta{Name: "security"}}, &Profile{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, &IPPool{}} {
		if errs := ValidateDelete(o); len(errs) > 0 {
			t.Errorf("%+v: %v", o, errs)
		}
	}
}

func TestCopyStatus(t *testing.T) {
	from := &Tier{Status: &ConditionsStatus{Conditions: []metav1.Condition{{Type: "Ready"}}}}
	to := &Tier{Spec: TierSpec{Order: new(float64)}}
	CopyStatus(to, from)
	if to.Status == nil || to.Status.Conditions[0].Type != "Ready" || to.Spec.Order == nil {
		t.Errorf("%+v", to)
	}
	if to.Status.Conditions[0].Type = "x"; from.Status.Conditions[0].Type != "Ready" {
		t.Error("the copy shares memory")
	}
	CopyStatus(&Profile{}, &Profile{}) // has none
	CopyStatus(to, &Profile{})
	if to.Status == nil {
		t.Error("the status of another kind was taken")
	}
}

// A filter that is not understood lets no route through; a peer that is not has no session.
func TestStoredBGPFailsClosed(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{"importV4":[{"action":"Accept"},{"action":"Reject"}]}`, "importV4 Accept; importV4 Reject;"},
		{`{"importV4":[{"action":"Accept","vrf":"x"},{"action":"Accept"}],"exportV6":[{"action":"Accept"}]}`, "importV4 Reject!; importV4 Accept; exportV6 Accept;"},
		{`{"importV4":[{"action":"Accept","cidr":"10.0.0.0/8"},null,7]}`, "importV4 Reject!; importV4 Reject!; importV4 Reject!;"},
		{`{"importV4":[{"action":"Accept","operations":[{"setMED":1}]}]}`, "importV4 Reject!;"},
		{`{"importV4":{"a":1},"exportV4":[{"action":"Accept"}]}`, "exportV4 Accept; importV4 Reject!;"},
		{`{"importAll":[],"exportV4":[{"action":"Accept"}]}`, "exportV4 Reject!; importV4 Reject!; exportV6 Reject!; importV6 Reject!;"},
		{`{"when":"x"}`, "exportV4 Reject!; importV4 Reject!; exportV6 Reject!; importV6 Reject!;"},
	} {
		o, _, err := DecodeStored("BGPFilter", []byte(`{"metadata":{"name":"a"},"spec":`+c.spec+`}`))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, list := range o.(*BGPFilter).Spec.lists() {
			for _, r := range *list.rules {
				s := list.name + " " + r.Action
				if r.Unreadable != nil {
					s += "!"
				}
				got = append(got, s+";")
			}
		}
		want := strings.SplitAfter(c.want, ";")
		for i := range want {
			want[i] = strings.TrimSpace(want[i])
		}
		want = slices.DeleteFunc(want, func(s string) bool { return s == "" })
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.spec, diff)
		}
	}
	for _, spec := range []string{`{"peerIP":"x"}`, `{"peerIP":"192.0.2.1","filters":["A"]}`, `{"peerIP":"192.0.2.1","tls":{}}`, `{"peerIP":"192.0.2.1","password":5}`} {
		if o, _, err := DecodeStored("BGPPeer", []byte(`{"metadata":{"name":"a"},"spec":`+spec+`}`)); err == nil {
			t.Errorf("%s was read as %+v", spec, o)
		}
	}
}
