package kube

import (
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// BenchmarkAddress is one write of a block, until a watch has told the endpoint whose address it is.
func BenchmarkAddress(b *testing.B) {
	c := take(b)
	s := c.open(b, false)
	uid := makePod(b, c, "default", "p", "n1", "")
	now, err := s.Create(ctxOf(b), block())
	if err != nil {
		b.Fatal(err)
	}
	told := make(chan int, 1)
	done := make(chan error, 1)
	go func() {
		done <- s.Watch(b.Context(), datastore.WatchOptions{Kinds: []string{"WorkloadEndpoint", "IPAMBlock"}}, func(batch datastore.Batch) error {
			for _, e := range batch.Events {
				if w, ok := e.Object.(*api.WorkloadEndpoint); ok {
					told <- len(w.Spec.IPNetworks)
				}
			}
			return nil
		})
	}()
	<-told
	for i := 0; b.Loop(); i++ {
		next := block(uid)
		if i%2 == 1 {
			next = block("", uid)
		}
		next.ResourceVersion = now.GetResourceVersion()
		if now, err = s.Update(ctxOf(b), next); err != nil {
			b.Fatal(err)
		}
		select {
		case <-told:
		case err := <-done:
			b.Fatal(err)
		}
	}
}
