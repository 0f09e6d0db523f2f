package kube

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"net/http"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

const (
	callTimeout = 5 * time.Second
	protobuf    = "application/vnd.kubernetes.protobuf"
)

var errClosed = fmt.Errorf("%w: it has been closed", datastore.ErrUnavailable)

// Store is a datastore.Store in a Kubernetes API server.
type Store struct {
	http  *http.Client
	typed rest.Interface // of Kubernetes' own types, in protobuf
	raw   rest.Interface // of JSON that we read ourselves
	log   *slog.Logger
	kinds map[string]api.KindInfo
	// sources holds those of Kubernetes' own first.
	sources []*source

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	pace pace
}

var _ datastore.Store = (*Store)(nil)

// Open returns a store in cfg's API server. It does not need the server to be up: each call finds out. It does ask it, if
// it is up, whether it is one that this store can be used with.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	rc, err := cfg.RESTConfig()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	s, err := open(rc, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	if err := s.checkServer(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func open(rc *rest.Config, log *slog.Logger) (*Store, error) {
	s := &Store{log: log, kinds: map[string]api.KindInfo{}, pace: usualPace(), sources: sources(maphash.MakeSeed())}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, k := range api.Kinds() {
		s.kinds[k.Kind] = k
	}
	var err error
	if s.http, err = rest.HTTPClientFor(rc); err != nil {
		return nil, err
	}
	// Only the types that are used: client-go's own scheme has all of them.
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, discoveryv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()

	typed := rest.CopyConfig(rc)
	typed.APIPath, typed.GroupVersion, typed.NegotiatedSerializer = "/api", &schema.GroupVersion{Version: "v1"}, typedCodecs{codecs}
	typed.ContentType, typed.AcceptContentTypes = protobuf, protobuf+","+runtime.ContentTypeJSON
	if s.typed, err = rest.RESTClientForConfigAndClient(typed, s.http); err != nil {
		return nil, err
	}
	raw := rest.CopyConfig(rc)
	raw.APIPath, raw.GroupVersion, raw.NegotiatedSerializer = "/apis", &schema.GroupVersion{}, rawCodecs{codecs}
	raw.ContentType, raw.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	if s.raw, err = rest.RESTClientForConfigAndClient(raw, s.http); err != nil {
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends watches and releases the connections.
func (s *Store) Close() error {
	s.cancel()
	s.http.CloseIdleConnections()
	return nil
}

// bounded gives ctx an end, if it has none.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if s.ctx.Err() != nil {
		return nil, nil, errClosed
	}
	if _, ok := ctx.Deadline(); ok {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	return ctx, cancel, nil
}
