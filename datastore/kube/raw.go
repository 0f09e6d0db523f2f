package kube

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// rawObject is an object as the server has sent it. Of its metadata only what client-go looks at is read, so that an
// object of which something can't be understood does not end the stream that it came with.
type rawObject struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	data []byte
	err  error // why it can't be read; then there is no data, and maybe not even a name
}

// rawList is a page of objects.
type rawList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []rawObject
}

// DeepCopyObject implements runtime.Object.
func (o *rawObject) DeepCopyObject() runtime.Object {
	out := *o
	o.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	return &out
}

// DeepCopyObject implements runtime.Object.
func (l *rawList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = make([]rawObject, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*rawObject)
	}
	return &out
}

// rawMeta is what is read of metadata.
type rawMeta struct {
	Name            string            `json:"name"`
	Namespace       string            `json:"namespace"`
	UID             types.UID         `json:"uid"`
	ResourceVersion string            `json:"resourceVersion"`
	Annotations     map[string]string `json:"annotations"`
}

func readRaw(data []byte) (*rawObject, error) {
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        rawMeta `json:"metadata"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("an object without readable metadata: %w", err)
	}
	o := &rawObject{TypeMeta: head.TypeMeta, data: data}
	m := head.Metadata
	o.Name, o.Namespace, o.UID, o.ResourceVersion = m.Name, m.Namespace, m.UID, m.ResourceVersion
	// Bookmarks carry an annotation that client-go looks for.
	if v, ok := m.Annotations[metav1.InitialEventsAnnotationKey]; ok {
		o.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: v}
	}
	return o, nil
}

func (l *rawList) read(data []byte) error {
	var page struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ListMeta   `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(data, &page); err != nil {
		return err
	}
	l.TypeMeta, l.ListMeta, l.Items = page.TypeMeta, page.Metadata, make([]rawObject, 0, len(page.Items))
	for _, item := range page.Items {
		o, err := readRaw(item)
		if err != nil {
			o = &rawObject{err: err}
		}
		l.Items = append(l.Items, *o)
	}
	return nil
}

// rawCodecs has client-go hand over JSON as it is.
type rawCodecs struct{ runtime.NegotiatedSerializer }

// SupportedMediaTypes implements runtime.NegotiatedSerializer.
func (c rawCodecs) SupportedMediaTypes() []runtime.SerializerInfo {
	var out []runtime.SerializerInfo
	for _, info := range c.NegotiatedSerializer.SupportedMediaTypes() {
		if info.MediaType == runtime.ContentTypeJSON {
			out = append(out, info)
		}
	}
	return out
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (c rawCodecs) DecoderToVersion(runtime.Decoder, runtime.GroupVersioner) runtime.Decoder {
	return rawDecoder{}
}

type rawDecoder struct{}

// Decode implements runtime.Decoder. It gives a Status where the server reports an error in the place of an object.
func (rawDecoder) Decode(data []byte, _ *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	var t metav1.TypeMeta
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, nil, err
	}
	gvk := t.GroupVersionKind()
	if t.Kind == "Status" && t.APIVersion == "v1" {
		s := &metav1.Status{}
		if err := json.Unmarshal(data, s); err != nil {
			return nil, &gvk, err
		}
		return s, &gvk, nil
	}
	if l, ok := into.(*rawList); ok {
		return l, &gvk, l.read(data)
	}
	o, err := readRaw(data)
	if err != nil && into == nil {
		return &rawObject{TypeMeta: t, err: err}, &gvk, nil // one of a stream, which goes on
	}
	if err != nil {
		return nil, &gvk, err
	}
	if into, ok := into.(*rawObject); ok {
		*into = *o
		return into, &gvk, nil
	}
	return o, &gvk, nil
}
