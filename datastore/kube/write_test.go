package kube

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/tortie/tortie/api"
)

// TestLosesNoField: what an older CustomResourceDefinition does not know is refused, but for what agents write.
func TestLosesNoField(t *testing.T) {
	asked := map[string]string{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked[r.Method] = r.URL.Query().Get("fieldValidation")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		io.Copy(w, r.Body)
	}))
	defer srv.Close()
	s, err := open(&rest.Config{Host: srv.URL}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, x := range []struct {
		o    api.Object
		want string
	}{
		{&api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default.a", ResourceVersion: "1"}}, "Strict"},
		{&api.BlockAffinity{ObjectMeta: metav1.ObjectMeta{Name: "n1-10-0-0-0-26", ResourceVersion: "1"},
			Spec: api.BlockAffinitySpec{State: "confirmed", Node: "n1", CIDR: "10.0.0.0/26"}}, ""},
	} {
		clear(asked)
		if _, err := s.Create(t.Context(), x.o); err != nil {
			t.Errorf("%T: %v", x.o, err)
		}
		if _, err := s.Update(t.Context(), x.o); err != nil {
			t.Errorf("%T: %v", x.o, err)
		}
		if asked["POST"] != x.want || asked["PUT"] != x.want || len(asked) != 2 {
			t.Errorf("%T: %v, want %q", x.o, asked, x.want)
		}
	}
}
