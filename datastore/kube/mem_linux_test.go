package kube

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

const (
	manyPods     = 10_000
	manyPolicies = 1_000
)

// crowd fills a server with pods of many labels in 100 namespaces, their blocks, and policies.
func crowd(f *fakeServer) {
	for i := range 100 {
		f.put(namespaces, fmt.Sprintf("ns%d", i), `"labels":{"kubernetes.io/metadata.name":"x","team":"a"}`, "")
	}
	var owners []string
	for i := range manyPods {
		uid := fmt.Sprintf("%08x-0000-4000-8000-000000000000", i)
		labels := fmt.Sprintf(`"uid":%q,"labels":{"app":"shop","tier":"backend","pod-template-hash":"6d4cf56db%d","version":"v1.2.%d"},"annotations":{"long":%q}`,
			uid, i%10, i%7, strings.Repeat("x", 500))
		f.put(pods, fmt.Sprintf("ns%d/shop-6d4cf56db%d-%05d", i%100, i%10, i), labels,
			fmt.Sprintf(`,"spec":{"nodeName":"node-%d","serviceAccountName":"default","containers":[{"name":"c","image":"i","ports":[{"name":"http","containerPort":8080}]}]},`+
				`"status":{"phase":"Running","podIPs":[{"ip":"10.%d.%d.%d"}]}`, i%250, i>>16, i>>8&255, i&255))
		if owners = append(owners, uid); len(owners) == 64 {
			fillBlock(f, i/64, owners)
			owners = nil
		}
	}
	for i := range manyPolicies {
		f.put(policies, fmt.Sprintf("ns%d/p%d", i%100, i), "", `,"spec":{"podSelector":{"matchLabels":{"app":"shop"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"tier":"frontend"}}}],"ports":[{"port":8080}]}]}`)
	}
}

func fillBlock(f *fakeServer, n int, owners []string) {
	b := block(owners...)
	b.Name = fmt.Sprintf("10-0-%d-%d-26", n>>2, n&3*64)
	b.Spec.CIDR = fmt.Sprintf("10.0.%d.%d/26", n>>2, n&3*64)
	data, err := api.Encode(b)
	if err != nil {
		f.t.Fatal(err)
	}
	_, spec, _ := strings.Cut(string(data), `"spec":`)
	f.put(blocks, b.Name, "", `,"spec":`+strings.TrimSuffix(spec, "}"))
}

// TestMemory: what a watch of a large cluster keeps, beside what its consumer does.
func TestMemory(t *testing.T) {
	f := newFake(t)
	crowd(f)
	var kinds []string
	for _, k := range api.Kinds() {
		kinds = append(kinds, k.Kind)
	}
	s := f.open()
	before := heap()
	inSync, done := make(chan struct{}), make(chan error, 1)
	n := 0
	go func() {
		done <- s.Watch(t.Context(), datastore.WatchOptions{Kinds: kinds}, func(b datastore.Batch) error {
			if n += len(b.Events); b.InSync && n >= manyPods+manyPolicies {
				close(inSync)
			}
			return nil
		})
	}()
	select {
	case <-inSync:
	case err := <-done:
		t.Fatal(err)
	}
	kept := heap() - before
	t.Logf("%d events, %.1f MB kept", n, float64(kept)/1e6)
	if kept > 20e6 {
		t.Errorf("%d bytes are kept for %d pods and %d policies", kept, manyPods, manyPolicies)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
