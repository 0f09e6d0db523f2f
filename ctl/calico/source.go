package calico

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// GroupVersion is the apiVersion of what Calico stores.
const GroupVersion = "crd.projectcalico.org/v1"

// Source is where Calico's objects are read.
type Source interface {
	// List returns the objects of a resource ("ippools") of GroupVersion, as JSON; none if it is not served.
	List(ctx context.Context, resource string) ([][]byte, error)
	// Pods returns all pods.
	Pods(ctx context.Context) ([]Pod, error)
	// Nodes returns the names of all nodes.
	Nodes(ctx context.Context) ([]string, error)
}

// Pod is what matters of a pod.
type Pod struct {
	Namespace, Name, UID, Node string
	Finished                   bool
	IPs                        []netip.Addr
}

// Files is what has been exported.
type Files struct {
	objects map[string][][]byte // by resource
	pods    []Pod
	nodes   []string
}

var _ Source = (*Files)(nil)

// head is what says what an object is.
type head struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
}

// Add reads a file: YAML or JSON, several documents, and lists. What is neither Calico's nor a Pod or a Node is left out.
func (f *Files) Add(data []byte) error {
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for n := 1; ; n++ {
		var doc json.RawMessage
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		if len(doc) == 0 || string(doc) == "null" {
			continue
		}
		if err := f.add(doc); err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
	}
}

func (f *Files) add(doc []byte) error {
	var h head
	if err := json.Unmarshal(doc, &h); err != nil {
		return err
	}
	if strings.HasSuffix(h.Kind, "List") {
		for _, item := range h.Items {
			if err := f.add(item); err != nil {
				return err
			}
		}
		return nil
	}
	switch {
	case h.APIVersion == "v1" && h.Kind == "Pod":
		p, err := ReadPod(doc)
		f.pods = append(f.pods, p)
		return err
	case h.APIVersion == "v1" && h.Kind == "Node":
		var o object
		err := json.Unmarshal(doc, &o)
		f.nodes = append(f.nodes, o.Metadata.Name)
		return err
	case h.APIVersion == GroupVersion:
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.from == h.Kind })
		if i < 0 {
			return nil
		}
		if f.objects == nil {
			f.objects = map[string][][]byte{}
		}
		f.objects[kinds[i].resource] = append(f.objects[kinds[i].resource], bytes.Clone(doc))
	}
	return nil
}

// Empty says whether there is nothing of Calico's in the files.
func (f *Files) Empty() bool { return len(f.objects) == 0 }

// List implements Source.
func (f *Files) List(_ context.Context, resource string) ([][]byte, error) {
	return f.objects[resource], nil
}

// Pods implements Source.
func (f *Files) Pods(context.Context) ([]Pod, error) {
	if len(f.pods) == 0 {
		return nil, errors.New("there are no pods in the files: nobody can tell which addresses are in use (kubectl get pods -A -o yaml)")
	}
	return f.pods, nil
}

// Nodes implements Source.
func (f *Files) Nodes(context.Context) ([]string, error) {
	if len(f.nodes) > 0 {
		return f.nodes, nil
	}
	for _, p := range f.pods { // those that matter
		if p.Node != "" && !slices.Contains(f.nodes, p.Node) {
			f.nodes = append(f.nodes, p.Node)
		}
	}
	return f.nodes, nil
}

// ReadPod reads a pod in JSON.
func ReadPod(data []byte) (Pod, error) {
	var o struct {
		Metadata struct {
			Namespace, Name, UID string
			Annotations          map[string]string
		}
		Spec   struct{ NodeName string }
		Status struct {
			Phase  string
			PodIP  string
			PodIPs []struct{ IP string }
		}
	}
	if err := json.Unmarshal(data, &o); err != nil {
		return Pod{}, fmt.Errorf("pod: %w", err)
	}
	m := &o.Metadata
	p := Pod{Namespace: m.Namespace, Name: m.Name, UID: m.UID, Node: o.Spec.NodeName, Finished: o.Status.Phase == "Succeeded" || o.Status.Phase == "Failed"}
	// A static pod's sandbox has the UID that its kubelet knows it by.
	if mirror := m.Annotations["kubernetes.io/config.mirror"]; mirror != "" && !strings.Contains(mirror, "-") {
		p.UID = mirror
	}
	ips := []string{o.Status.PodIP}
	for _, ip := range o.Status.PodIPs {
		ips = append(ips, ip.IP)
	}
	ips = append(ips, strings.Split(m.Annotations["cni.projectcalico.org/podIPs"], ",")...)
	ips = append(ips, m.Annotations["cni.projectcalico.org/podIP"])
	for _, text := range ips {
		text, _, _ = strings.Cut(strings.TrimSpace(text), "/")
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(p.IPs, a.Unmap()) {
			p.IPs = append(p.IPs, a.Unmap())
		}
	}
	return p, nil
}
