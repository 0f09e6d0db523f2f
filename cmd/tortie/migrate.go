package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	kerrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/tortie/tortie/ctl/calico"
	"github.com/tortie/tortie/datastore/kube"
)

// pageSize is how many objects a request for a list asks for.
const pageSize = 500

// calicoCluster reads Calico's objects from the cluster that it runs in.
type calicoCluster struct {
	rest rest.Interface
	core corev1client.CoreV1Interface
}

var _ calico.Source = (*calicoCluster)(nil)

// calico opens the cluster of a kubeconfig file; "" = the store's.
func (s *storeFlags) calico(_ context.Context, kubeconfig string) (calico.Source, error) {
	c := kube.Config{Kubeconfig: kubeconfig, Version: buildVersion()}
	if k := s.settings().Kubernetes; k != nil && kubeconfig == "" {
		c.Kubeconfig, c.APIServers = cmp.Or(kubeconfig, k.Kubeconfig), k.APIServers
	}
	rc, err := c.RESTConfig()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	core, err := corev1client.NewForConfig(rc)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return &calicoCluster{core.RESTClient(), core}, nil
}

// List implements calico.Source.
func (c *calicoCluster) List(ctx context.Context, resource string) ([][]byte, error) {
	var out [][]byte
	for next := ""; ; {
		data, err := c.rest.Get().AbsPath("/apis", calico.GroupVersion, resource).Param("limit", fmt.Sprint(pageSize)).Param("continue", next).
			SetHeader("Accept", "application/json").Do(ctx).Raw()
		if kerrors.IsNotFound(err) {
			return nil, nil // there is no such kind
		}
		if err != nil {
			return nil, err
		}
		var page struct {
			Metadata metav1.ListMeta   `json:"metadata"`
			Items    []json.RawMessage `json:"items"`
		}
		if err := json.Unmarshal(data, &page); err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			out = append(out, item)
		}
		if next = page.Metadata.Continue; next == "" {
			return out, nil
		}
	}
}

// Pods implements calico.Source.
func (c *calicoCluster) Pods(ctx context.Context) ([]calico.Pod, error) {
	var out []calico.Pod
	for o := (metav1.ListOptions{Limit: pageSize}); ; {
		page, err := c.core.Pods(corev1.NamespaceAll).List(ctx, o)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			data, err := json.Marshal(&page.Items[i])
			if err != nil {
				return nil, err
			}
			p, err := calico.ReadPod(data)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return out, nil
		}
	}
}

// Nodes implements calico.Source.
func (c *calicoCluster) Nodes(ctx context.Context) ([]string, error) {
	list, err := c.core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range list.Items {
		out = append(out, list.Items[i].Name)
	}
	return out, nil
}
