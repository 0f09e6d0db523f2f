package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// typedList is a page of objects of one of Kubernetes' own types. Each is read by itself: one that can't be read is a
// *rawObject that says why, and the others are as they are.
type typedList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []runtime.Object

	gvk  schema.GroupVersionKind // of the items
	make func() message
}

// message is an object that reads the wire's format by itself.
type message interface {
	runtime.Object
	Unmarshal(data []byte) error
}

// DeepCopyObject implements runtime.Object.
func (l *typedList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = make([]runtime.Object, len(l.Items))
	for i := range l.Items {
		out.Items[i] = l.Items[i].DeepCopyObject()
	}
	return &out
}

// listOf makes empty lists of T.
func listOf[T any, P interface {
	*T
	message
}](version schema.GroupVersion, kind string) func() runtime.Object {
	return func() runtime.Object {
		return &typedList{gvk: version.WithKind(kind), make: func() message { return P(new(T)) }}
	}
}

// typedCodecs has client-go hand over what can't be read, too, as a *rawObject: one object must not end the stream that it
// comes with, nor the list that has it.
type typedCodecs struct{ runtime.NegotiatedSerializer }

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (c typedCodecs) DecoderToVersion(d runtime.Decoder, v runtime.GroupVersioner) runtime.Decoder {
	return typedDecoder{c.NegotiatedSerializer.DecoderToVersion(d, v)}
}

type typedDecoder struct{ inner runtime.Decoder }

// Decode implements runtime.Decoder.
func (d typedDecoder) Decode(data []byte, gvk *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	if l, ok := into.(*typedList); ok {
		return d.list(data, l)
	}
	o, actual, err := d.inner.Decode(data, gvk, into)
	if err == nil || into != nil {
		return o, actual, err
	}
	broken, headErr := head(data, err)
	if headErr != nil {
		return nil, actual, err
	}
	return broken, actual, nil
}

func (d typedDecoder) list(data []byte, l *typedList) (runtime.Object, *schema.GroupVersionKind, error) {
	body, err := envelope(data)
	if err != nil {
		return nil, nil, err
	}
	if body == nil {
		return d.listJSON(data, l)
	}
	if body.Kind == "Status" {
		o, gvk, err := d.inner.Decode(data, nil, nil)
		return o, gvk, err
	}
	l.APIVersion, l.Kind = body.APIVersion, body.Kind
	err = fields(body.Raw, func(n protowire.Number, value []byte) error {
		switch n {
		case 1:
			return l.ListMeta.Unmarshal(value)
		case 2:
			o := l.make()
			if err := o.Unmarshal(value); err != nil {
				l.Items = append(l.Items, lenient(value, l.gvk, err))
			} else {
				l.Items = append(l.Items, o)
			}
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("a list: %w", err)
	}
	gvk := l.GroupVersionKind()
	return l, &gvk, nil
}

func (d typedDecoder) listJSON(data []byte, l *typedList) (runtime.Object, *schema.GroupVersionKind, error) {
	o, gvk, err := rawDecoder{}.Decode(data, nil, &rawList{})
	raw, ok := o.(*rawList)
	if err != nil || !ok {
		return o, gvk, err
	}
	l.TypeMeta, l.ListMeta = raw.TypeMeta, raw.ListMeta
	for i := range raw.Items {
		r := &raw.Items[i]
		if r.err != nil {
			l.Items = append(l.Items, r)
			continue
		}
		o, _, err := d.inner.Decode(r.data, &l.gvk, l.make())
		if err != nil {
			o = &rawObject{TypeMeta: r.TypeMeta, ObjectMeta: r.ObjectMeta, err: err}
		}
		l.Items = append(l.Items, o)
	}
	return l, gvk, nil
}

// protobufMagic is what a message of the API server begins with.
var protobufMagic = []byte("k8s\x00")

// envelope opens a message in protobuf; nil if it is in JSON.
func envelope(data []byte) (*runtime.Unknown, error) {
	body, ok := bytes.CutPrefix(data, protobufMagic)
	if !ok {
		return nil, nil
	}
	u := &runtime.Unknown{}
	if err := u.Unmarshal(body); err != nil {
		return nil, fmt.Errorf("the envelope of a message: %w", err)
	}
	return u, nil
}

// head reads of an object that can't be read, since err, who it is.
func head(data []byte, err error) (*rawObject, error) {
	body, eErr := envelope(data)
	if eErr != nil {
		return nil, eErr
	}
	if body != nil {
		return lenient(body.Raw, schema.FromAPIVersionAndKind(body.APIVersion, body.Kind), err), nil
	}
	o, jErr := readRaw(data)
	if jErr != nil {
		if !json.Valid(data) { // half a message
			return nil, jErr
		}
		return &rawObject{err: err}, nil
	}
	o.data, o.err = nil, err
	return o, nil
}

// lenient reads who an object is, as far as its metadata can be read.
func lenient(object []byte, gvk schema.GroupVersionKind, why error) *rawObject {
	o := &rawObject{err: why}
	o.APIVersion, o.Kind = gvk.ToAPIVersionAndKind()
	_ = fields(object, func(n protowire.Number, meta []byte) error {
		if n != 1 {
			return nil
		}
		_ = fields(meta, func(n protowire.Number, value []byte) error {
			switch n {
			case 1:
				o.Name = string(value)
			case 3:
				o.Namespace = string(value)
			case 5:
				o.UID = types.UID(value)
			case 6:
				o.ResourceVersion = string(value)
			}
			return nil
		}) // what comes before the damage
		return errDone
	})
	return o
}

var errDone = errors.New("done")

// fields calls fn for each field of a message that is a text or a message itself.
func fields(m []byte, fn func(protowire.Number, []byte) error) error {
	for len(m) > 0 {
		n, kind, size := protowire.ConsumeTag(m)
		if size < 0 {
			return protowire.ParseError(size)
		}
		m = m[size:]
		if kind != protowire.BytesType {
			if size = protowire.ConsumeFieldValue(n, kind, m); size < 0 {
				return protowire.ParseError(size)
			}
			m = m[size:]
			continue
		}
		value, size := protowire.ConsumeBytes(m)
		if size < 0 {
			return protowire.ParseError(size)
		}
		m = m[size:]
		if err := fn(n, value); err != nil {
			return err
		}
	}
	return nil
}
