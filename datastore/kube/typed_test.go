package kube

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/datastore"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// wireDecoder is what a store decodes Kubernetes' own types with, and what encodes them as a server does.
func wireDecoder(t testing.TB) (runtime.Decoder, func(runtime.Object) []byte) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), protobuf)
	if !ok {
		t.Fatal("no protobuf")
	}
	encoder := codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion)
	return typedCodecs{codecs}.DecoderToVersion(info.Serializer, corev1.SchemeGroupVersion), func(o runtime.Object) []byte {
		var b bytes.Buffer
		if err := encoder.Encode(o, &b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
}

func somePod(name string) corev1.Pod {
	return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u-1", ResourceVersion: "7", Labels: map[string]string{"a": "b"}},
		Spec: corev1.PodSpec{NodeName: "node-XY"}}
}

// damage breaks the message that holds the name of a pod's node: a length beyond its end.
func damage(t testing.TB, data []byte) []byte {
	t.Helper()
	i := bytes.Index(data, []byte("\x07node-XY"))
	if i < 0 {
		t.Fatal("nothing to damage")
	}
	data = slices.Clone(data)
	data[i] = 0x7f
	return data
}

// TestDamagedInList: the others of a list are read, and it is known which one is not.
func TestDamagedInList(t *testing.T) {
	d, encode := wireDecoder(t)
	list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "9", Continue: "more"},
		Items: []corev1.Pod{somePod("a"), somePod("b"), somePod("c")}}
	list.Items[0].Spec.NodeName, list.Items[2].Spec.NodeName = "n", "n"
	for _, broken := range []bool{false, true} {
		data := encode(list)
		if broken {
			data = damage(t, data)
		}
		l := listOf[corev1.Pod](corev1.SchemeGroupVersion, "Pod")()
		if _, _, err := d.Decode(data, nil, l); err != nil {
			t.Fatal(err)
		}
		m, err := meta.ListAccessor(l)
		if err != nil || m.GetResourceVersion() != "9" || m.GetContinue() != "more" {
			t.Errorf("list %+v, %v", m, err)
		}
		var got []string
		err = meta.EachListItem(l, func(o runtime.Object) error {
			switch o := o.(type) {
			case *corev1.Pod:
				got = append(got, fmt.Sprint(o.Name, " ", o.Labels["a"]))
			case *rawObject:
				got = append(got, fmt.Sprint(o.Namespace, "/", o.Name, " ", o.UID, " ", o.ResourceVersion, " ", o.err != nil))
			}
			return nil
		})
		want := []string{"a b", "b b", "c b"}
		if broken {
			want[1] = "shop/b u-1 7 true"
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("read %q, %v, want %q", got, err, want)
		}
	}
}

// TestDamagedAlone: as a watch or a get has it.
func TestDamagedAlone(t *testing.T) {
	d, encode := wireDecoder(t)
	pod := somePod("b")
	whole := encode(&pod)
	o, _, err := d.Decode(damage(t, whole), nil, nil)
	r, ok := o.(*rawObject)
	if err != nil || !ok || r.Name != "b" || r.Namespace != "shop" || r.ResourceVersion != "7" || r.err == nil {
		t.Errorf("read %#v, %v", o, err)
	}
	if o, _, err := d.Decode(whole, nil, nil); err != nil || o.(*corev1.Pod).Spec.NodeName != "node-XY" {
		t.Errorf("read %#v, %v", o, err)
	}
	// Who gives the object to fill wants to know.
	if _, _, err := d.Decode(damage(t, whole), nil, &corev1.Pod{}); err == nil {
		t.Error("no error")
	}
	// Whatever comes, nothing falls over.
	for i := range whole {
		_, _, _ = d.Decode(whole[:i], nil, nil)
		l := listOf[corev1.Pod](corev1.SchemeGroupVersion, "Pod")()
		_, _, _ = d.Decode(whole[:i], nil, l)
	}
	status := &metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Code: 410, Message: "gone"}
	if o, _, err := d.Decode(encode(status), nil, nil); err != nil || o.(*metav1.Status).Code != 410 {
		t.Errorf("a status: %#v, %v", o, err)
	}
}

// TestUnreadableNative: an object of Kubernetes' own that can't be read stops nobody, is named, and is not there.
func TestUnreadableNative(t *testing.T) {
	for _, old := range []bool{false, true} {
		f := newFake(t)
		f.old = old
		f.put(namespaces, "shop", "", "")
		f.put(pods, "shop/a", `"uid":"u1"`, `,"spec":{"nodeName":"n"}`)
		f.put(pods, "shop/b", `"uid":"u2"`, `,"spec":{"nodeName":["?"]}`)
		f.put(pods, "shop/c", `"uid":"u3"`, `,"spec":{"nodeName":"n"}`)
		f.put(nodes, "n", "", "")
		f.put(nodes, "m", "", `,"spec":{"podCIDRs":7}`)
		f.put(serviceAccounts, "shop/x", "", `,"secrets":"?"`)
		f.put(endpointSlices, "shop/s", "", `,"addressType":7`)
		s := f.open()
		w := watchKinds(t, s, kindsOf("WorkloadEndpoint", "Profile", "Node", "EndpointSlice"))
		const odd = "WorkloadEndpoint/shop/?-k8s-b-eth0"
		rest := []string{"EndpointSlice/shop/s", "Node/m", "Node/n", "Profile/ksa.shop.x", "Profile/kns.shop", "WorkloadEndpoint/shop/n-k8s-a-eth0"}
		w.untilWorld(append(slices.Clone(rest), odd, "WorkloadEndpoint/shop/n-k8s-c-eth0")...)
		for _, k := range []string{odd, "Node/m", "Profile/ksa.shop.x", "EndpointSlice/shop/s"} {
			if e := w.world[k]; e.Object != nil || !errors.Is(e.Problem, datastore.ErrUnreadable) {
				t.Errorf("%s: %v, %v", k, e.Object, e.Problem)
			}
		}
		if p := w.world[odd].Problem; !strings.Contains(p.Error(), "pods shop/b") {
			t.Errorf("it is not named: %v", p)
		}
		if !w.last.Status.Connected || len(w.last.Status.Kinds) > 0 {
			t.Errorf("status %+v", w.last.Status)
		}
		all, err := s.List(t.Context(), "WorkloadEndpoint", "")
		if len(all) != 2 || !errors.Is(err, datastore.ErrUnreadable) {
			t.Errorf("listed %d, %v", len(all), err)
		}
		f.mu.Lock()
		before := len(f.requests)
		f.mu.Unlock()
		f.put(pods, "shop/b", `"uid":"u2"`, `,"spec":{"nodeName":"n"}`)
		f.put(pods, "shop/c", `"uid":"u3"`, `,"spec":{"nodeName":["?"]}`)
		w.untilWorld(append(slices.Clone(rest), "WorkloadEndpoint/shop/n-k8s-b-eth0", "WorkloadEndpoint/shop/?-k8s-c-eth0")...)
		f.remove(pods, "shop/c")
		w.untilWorld(append(slices.Clone(rest), "WorkloadEndpoint/shop/n-k8s-b-eth0")...)
		// A namespace that can't be read keeps its new pods back; one whose name can't either is skipped.
		f.put(namespaces, "dark", "", `,"spec":7`)
		f.put(pods, "dark/d", `"uid":"u4"`, `,"spec":{"nodeName":"n"}`)
		f.put(nodes, "o", `"labels":7`, "")
		f.put(nodes, "p", "", "")
		w.untilWorld(append(slices.Clone(rest), "WorkloadEndpoint/shop/n-k8s-b-eth0", "Profile/kns.dark", "Node/o", "Node/p")...)
		f.put(namespaces, "dark", "", "")
		w.untilWorld(append(slices.Clone(rest), "WorkloadEndpoint/shop/n-k8s-b-eth0", "Profile/kns.dark", "Node/o", "Node/p", "WorkloadEndpoint/dark/n-k8s-d-eth0")...)
		f.mu.Lock()
		for _, r := range f.requests[before:] {
			if !strings.Contains(r, "watch=true") || strings.Contains(r, "sendInitialEvents") {
				t.Errorf("it is read anew: %s", r)
			}
		}
		f.mu.Unlock()
		// Read anew, it is the same.
		again := watchKinds(t, f.open(), kindsOf("WorkloadEndpoint", "Node"))
		again.untilWorld("WorkloadEndpoint/shop/n-k8s-a-eth0", "WorkloadEndpoint/shop/n-k8s-b-eth0", "WorkloadEndpoint/dark/n-k8s-d-eth0",
			"Node/m", "Node/n", "Node/o", "Node/p")
	}
}
