package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"sigs.k8s.io/yaml"
)

// Encode gives an object as JSON on one line, with its kind and apiVersion, always in the same order. What Decode reads
// back is equal to it.
func Encode(o Object) ([]byte, error) {
	k, ok := KindByName(o.GetKind())
	if !ok {
		return nil, fmt.Errorf("encoding %s: the kind is not known", KeyOf(o))
	}
	shallow := reflect.New(reflect.TypeOf(o).Elem())
	shallow.Elem().Set(reflect.ValueOf(o).Elem())
	out := shallow.Interface().(Object)
	setType(out, k.APIVersion, k.Kind)
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // selectors are full of &&
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", KeyOf(o), err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// EncodeYAML gives an object as YAML.
func EncodeYAML(o Object) ([]byte, error) {
	b, err := Encode(o)
	if err != nil {
		return nil, err
	}
	if b, err = yaml.JSONToYAML(b); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", KeyOf(o), err)
	}
	return b, nil
}

// DeepCopy returns a copy that shares nothing with o that can be changed.
func DeepCopy(o Object) Object {
	src := reflect.ValueOf(o)
	dst := reflect.New(src.Type().Elem())
	deepCopy(dst.Elem(), src.Elem())
	return dst.Interface().(Object)
}

var timeType = reflect.TypeFor[time.Time]()

func deepCopy(dst, src reflect.Value) {
	switch src.Kind() {
	case reflect.Pointer:
		if !src.IsNil() {
			dst.Set(reflect.New(src.Type().Elem()))
			deepCopy(dst.Elem(), src.Elem())
		}
	case reflect.Slice:
		if !src.IsNil() {
			dst.Set(reflect.MakeSlice(src.Type(), src.Len(), src.Len()))
			for i := range src.Len() {
				deepCopy(dst.Index(i), src.Index(i))
			}
		}
	case reflect.Map:
		if !src.IsNil() {
			dst.Set(reflect.MakeMapWithSize(src.Type(), src.Len()))
			plain := src.Type().Elem().Kind() == reflect.String
			for it := src.MapRange(); it.Next(); { // keys are strings
				value := it.Value()
				if !plain {
					value = reflect.New(src.Type().Elem()).Elem()
					deepCopy(value, it.Value())
				}
				dst.SetMapIndex(it.Key(), value)
			}
		}
	case reflect.Interface:
		if !src.IsNil() {
			inner := reflect.New(src.Elem().Type()).Elem()
			deepCopy(inner, src.Elem())
			dst.Set(inner)
		}
	case reflect.Struct:
		if src.Type() == timeType {
			dst.Set(src)
			return
		}
		for i := range src.NumField() {
			deepCopy(dst.Field(i), src.Field(i))
		}
	default:
		dst.Set(src)
	}
}
