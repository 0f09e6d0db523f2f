// Package cnp runs the conformance suite of ClusterNetworkPolicy as it comes with sigs.k8s.io/network-policy-api,
// on a machine whose kernel has no SCTP: the specs of SCTP alone are skipped, the pods have no containers that
// listen on it, and the other specs don't try it (../../build.sh takes those tries out of them as it builds them).
package cnp

import (
	"context"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/config"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	api "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/network-policy-api/conformance/tests"
	"sigs.k8s.io/network-policy-api/conformance/utils/flags"
	"sigs.k8s.io/network-policy-api/conformance/utils/suite"
)

func TestConformance(t *testing.T) {
	cfg, err := config.GetConfig()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := client.NewWithWatch(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := api.Install(inner.Scheme()); err != nil {
		t.Fatal(err)
	}
	clientset, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := suite.New(suite.Options{
		Client:                     withoutSCTP(inner),
		ClientSet:                  clientset,
		KubeConfig:                 *cfg,
		Debug:                      *flags.ShowDebug,
		CleanupBaseResources:       *flags.CleanupBaseResources,
		SupportedFeatures:          suite.ParseSupportedFeatures(*flags.SupportedFeatures),
		ExemptFeatures:             suite.ParseSupportedFeatures(*flags.ExemptFeatures),
		EnableAllSupportedFeatures: *flags.EnableAllSupportedFeatures,
	})
	s.Setup(t)
	for _, test := range tests.ConformanceTests {
		t.Run(test.ShortName, func(t *testing.T) {
			if strings.HasSuffix(test.ShortName, "SCTP") {
				t.Skip("this kernel has no SCTP")
			}
			test.Run(t, s)
		})
	}
}

// withoutSCTP makes a client that creates StatefulSets without the containers that would listen on SCTP: on a kernel
// without it they end at once, and no pod of the suite would ever be ready.
func withoutSCTP(c client.WithWatch) client.Client {
	return interceptor.NewClient(c, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if u, ok := o.(*unstructured.Unstructured); ok && u.GetKind() == "StatefulSet" {
				if err := dropSCTP(u); err != nil {
					return err
				}
			}
			return c.Create(ctx, o, opts...)
		},
	})
}

func dropSCTP(u *unstructured.Unstructured) error {
	path := []string{"spec", "template", "spec", "containers"}
	containers, _, err := unstructured.NestedSlice(u.Object, path...)
	if err != nil {
		return err
	}
	containers = slices.DeleteFunc(containers, func(c any) bool {
		env, _, _ := unstructured.NestedSlice(c.(map[string]any), "env")
		return slices.ContainsFunc(env, func(e any) bool {
			name, _, _ := unstructured.NestedString(e.(map[string]any), "name")
			return strings.HasPrefix(name, "SERVE_SCTP_PORT_")
		})
	})
	return unstructured.SetNestedSlice(u.Object, containers, path...)
}
