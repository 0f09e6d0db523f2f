package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// reader fills Go values from a tree, and notes everything that does not fit, with its path, instead of stopping.
type reader struct {
	problems []located
}

// located is a problem with the line that it is on.
type located struct {
	Problem
	line int
}

func (r *reader) problem(p *field.Path, v *value, format string, args ...any) {
	r.problems = append(r.problems, located{Problem{clip(p.String()), clip(fmt.Sprintf(format, args...))}, v.line})
}

// read fills into, which is addressable. ok is false if something in v has a type that does not fit; unknown and
// repeated fields are noted only.
func (r *reader) read(p *field.Path, v *value, into reflect.Value) (ok bool) {
	if v.kind == nullValue {
		into.SetZero()
		return true
	}
	if t, isTree := into.Addr().Interface().(treeReader); isTree {
		return t.readTree(r, p, v)
	}
	if u, isUnmarshaler := into.Addr().Interface().(json.Unmarshaler); isUnmarshaler {
		if err := u.UnmarshalJSON(v.appendJSON(nil)); err != nil {
			into.SetZero()
			r.problem(p, v, "%v", err)
			return false
		}
		return true
	}
	switch into.Kind() {
	case reflect.Pointer:
		target := reflect.New(into.Type().Elem())
		into.SetZero()
		if ok = r.read(p, v, target.Elem()); ok || target.Elem().Kind() == reflect.Struct {
			into.Set(target)
		}
		return ok
	case reflect.Struct:
		return r.readStruct(p, v, into)
	case reflect.Slice:
		return r.readList(p, v, into)
	case reflect.Map:
		return r.readMap(p, v, into)
	}
	return r.readScalar(p, v, into)
}

// treeReader is a type that reads itself, and notes every problem with its path, where an Unmarshaler stops at the first.
type treeReader interface {
	readTree(r *reader, p *field.Path, v *value) (ok bool)
}

func (r *reader) readScalar(p *field.Path, v *value, into reflect.Value) bool {
	switch k := into.Kind(); {
	case k == reflect.String:
		if v.kind != textValue {
			return r.wrong(p, v, into, "must be a string%s", quoteHint(v))
		}
		into.SetString(v.text)
	case k == reflect.Bool:
		if v.kind != boolValue {
			return r.wrong(p, v, into, "must be true or false")
		}
		into.SetBool(v.text == "true")
	case into.CanInt():
		n, err := strconv.ParseInt(v.text, 10, into.Type().Bits())
		if v.kind != numberValue || err != nil {
			return r.wrong(p, v, into, "must be a whole number")
		}
		into.SetInt(n)
	case into.CanUint():
		bits := into.Type().Bits()
		n, err := strconv.ParseUint(v.text, 10, bits)
		if v.kind != numberValue || err != nil {
			return r.wrong(p, v, into, "must be a whole number from 0 to %d", uint64(1)<<bits-1)
		}
		into.SetUint(n)
	case into.CanFloat():
		n, err := strconv.ParseFloat(v.text, 64)
		if v.kind != numberValue || err != nil {
			return r.wrong(p, v, into, "must be a number")
		}
		into.SetFloat(n)
	default: // no kind has such a field; a test walks all of them
		return r.wrong(p, v, into, "has a type that can't be read")
	}
	return true
}

func quoteHint(v *value) string {
	if v.kind == boolValue || v.kind == numberValue {
		return " (put it in quotes)"
	}
	return ""
}

func (r *reader) wrong(p *field.Path, v *value, into reflect.Value, format string, args ...any) bool {
	into.SetZero()
	r.problem(p, v, "%s, not %s", fmt.Sprintf(format, args...), v)
	return false
}

func (r *reader) readStruct(p *field.Path, v *value, into reflect.Value) bool {
	if v.kind != objectValue {
		return r.wrong(p, v, into, "must be an object")
	}
	fields := structFields(into.Type())
	seen := map[string]bool{}
	ok := true
	for _, m := range v.fields {
		child := p.Child(m.name)
		index, known := fields[m.name]
		switch {
		case seen[m.name]:
			r.problem(child, m.value, "given twice")
			continue
		case !known:
			r.problem(child, m.value, "unknown field%s", didYouMean(m.name, fields))
		default:
			ok = r.read(child, m.value, into.FieldByIndex(index)) && ok
		}
		seen[m.name] = true
	}
	return ok
}

// structFields maps the JSON names of a struct's fields to their place.
func structFields(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name != "":
			fields[name] = f.Index
		case f.Anonymous:
			for inner, index := range structFields(f.Type) {
				fields[inner] = append([]int{i}, index...)
			}
		}
	}
	return fields
}

// readList leaves out items whose type does not fit, unless they are rules, which can say that they are unreadable.
func (r *reader) readList(p *field.Path, v *value, into reflect.Value) bool {
	if v.kind != listValue {
		return r.wrong(p, v, into, "must be a list")
	}
	elem := into.Type().Elem()
	keep := isRule(elem)
	list := reflect.MakeSlice(into.Type(), 0, len(v.items))
	ok := true
	for i, item := range v.items {
		target := reflect.New(elem).Elem()
		if !r.readItem(p.Index(i), item, target) {
			ok = false
			if !keep {
				continue
			}
		}
		list = reflect.Append(list, target)
	}
	into.Set(list)
	return ok
}

func (r *reader) readItem(p *field.Path, v *value, into reflect.Value) bool {
	if v.kind == nullValue {
		r.problem(p, v, "must not be null")
		return false
	}
	return r.read(p, v, into)
}

func isRule(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	_, ok := t.FieldByName("Unreadable")
	return ok
}

func (r *reader) readMap(p *field.Path, v *value, into reflect.Value) bool {
	if v.kind != objectValue {
		return r.wrong(p, v, into, "must be an object")
	}
	out := reflect.MakeMapWithSize(into.Type(), len(v.fields))
	ok := true
	for _, m := range v.fields {
		child := p.Key(m.name)
		key := reflect.ValueOf(m.name).Convert(into.Type().Key())
		if out.MapIndex(key).IsValid() {
			r.problem(child, m.value, "given twice")
			continue
		}
		target := reflect.New(into.Type().Elem()).Elem()
		if !r.readItem(child, m.value, target) {
			ok = false
			continue
		}
		out.SetMapIndex(key, target)
	}
	into.Set(out)
	return ok
}

// didYouMean suggests the known name that is nearest to a mistyped one.
func didYouMean[T any](name string, known map[string]T) string {
	best, distance := "", max(2, len(name)/3)+1
	for k := range known {
		d := editDistance(strings.ToLower(name), strings.ToLower(k))
		if d < distance || d == distance && best != "" && k < best {
			best, distance = k, d
		}
	}
	if best == "" || distance >= len(best) {
		return ""
	}
	return "; did you mean " + best + "?"
}

// editDistance is the number of single characters to change, add or take away to make b of a.
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
