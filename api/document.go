package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"go.yaml.in/yaml/v3"
)

const (
	// MaxInput is the size of the largest file or stored value that is read.
	MaxInput = 16 << 20
	// maxNesting bounds the recursion of everything that walks a value.
	maxNesting = 64
)

// value is a piece of JSON or YAML. Unlike the decoders' own forms it keeps repeated keys and knows its line.
type value struct {
	kind   valueKind
	text   string // of textValue; the literal of numberValue and boolValue
	items  []*value
	fields []member
	line   int
}

type member struct {
	name  string
	value *value
}

type valueKind uint8

const (
	nullValue valueKind = iota
	boolValue
	numberValue
	textValue
	listValue
	objectValue
)

// get returns the first field of that name; nil if there is none.
func (v *value) get(name string) *value {
	if v == nil || v.kind != objectValue {
		return nil
	}
	for _, m := range v.fields {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// str returns the text of a string, "" for everything else.
func (v *value) str() string {
	if v == nil || v.kind != textValue {
		return ""
	}
	return v.text
}

// String describes the value in an error message.
func (v *value) String() string {
	switch v.kind {
	case nullValue:
		return "null"
	case listValue:
		return "a list"
	case objectValue:
		return "an object"
	case textValue:
		if len(v.text) > 40 {
			return strconv.Quote(v.text[:40] + "...")
		}
		return strconv.Quote(v.text)
	}
	return v.text
}

// appendJSON writes the value as JSON.
func (v *value) appendJSON(b []byte) []byte {
	switch v.kind {
	case nullValue:
		return append(b, "null"...)
	case textValue:
		return appendString(b, v.text)
	case listValue:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	case objectValue:
		b = append(b, '{')
		for i, m := range v.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = m.value.appendJSON(append(appendString(b, m.name), ':'))
		}
		return append(b, '}')
	}
	return append(b, v.text...)
}

func appendString(b []byte, s string) []byte {
	j, err := json.Marshal(s)
	if err != nil { // a string always marshals
		panic(err)
	}
	return append(b, j...)
}

// parseDocuments reads a stream of YAML or JSON documents. On an error it returns those before it too.
func parseDocuments(data []byte) ([]*value, error) {
	if len(data) > MaxInput {
		return nil, fmt.Errorf("input of %d bytes is larger than %d", len(data), MaxInput)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if looksLikeJSON(data) {
		// What is not JSON all the same may be YAML: a flow mapping, or JSON documents between "---".
		docs, err := parseJSONStream(data)
		if err == nil {
			return docs, nil
		}
		if docs, yamlErr := parseYAML(data); yamlErr == nil {
			return docs, nil
		}
		return docs, err
	}
	return parseYAML(data)
}

func looksLikeJSON(data []byte) bool {
	const blanks = " \t\r\n"
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(data, blanks), []byte("{"))
	rest = bytes.TrimLeft(rest, blanks)
	return ok && len(rest) > 0 && (rest[0] == '"' || rest[0] == '}')
}

// jsonParser reads JSON into values.
type jsonParser struct {
	data []byte
	dec  *json.Decoder
	line int
	seen int // bytes in which line ends have been counted
}

func newJSONParser(data []byte) *jsonParser {
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.dec.UseNumber()
	return p
}

func parseJSONStream(data []byte) ([]*value, error) {
	p := newJSONParser(data)
	var docs []*value
	for {
		v, err := p.next(0)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, fmt.Errorf("JSON, line %d: %w", p.here(), err)
		}
		docs = append(docs, v)
	}
}

// parseJSON reads exactly one JSON value.
func parseJSON(data []byte) (*value, error) {
	p := newJSONParser(data)
	v, err := p.next(0)
	if err == nil {
		if _, end := p.dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is more after the value")
		}
	}
	return v, err
}

// here returns the number of the line that the decoder has reached.
func (p *jsonParser) here() int {
	at := int(p.dec.InputOffset())
	p.line += bytes.Count(p.data[p.seen:at], []byte("\n"))
	p.seen = at
	return p.line
}

func (p *jsonParser) next(depth int) (*value, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("nested more than %d deep", maxNesting)
	}
	token, err := p.dec.Token()
	if err != nil {
		if depth > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	v := &value{line: p.here()}
	switch token := token.(type) {
	case bool:
		v.kind, v.text = boolValue, strconv.FormatBool(token)
	case json.Number:
		v.kind, v.text = numberValue, token.String()
	case string:
		v.kind, v.text = textValue, token
	case json.Delim:
		return v, p.nested(v, token, depth)
	}
	return v, nil
}

// nested reads the rest of a list or object into v.
func (p *jsonParser) nested(v *value, open json.Delim, depth int) error {
	v.kind = listValue
	if open == '{' {
		v.kind = objectValue
	}
	for p.dec.More() {
		var name string
		if v.kind == objectValue {
			key, err := p.next(depth + 1)
			if err != nil {
				return err
			}
			name = key.text // the decoder lets only strings be keys
		}
		item, err := p.next(depth + 1)
		if err != nil {
			return err
		}
		if v.kind == objectValue {
			v.fields = append(v.fields, member{name, item})
		} else {
			v.items = append(v.items, item)
		}
	}
	_, err := p.dec.Token() // the closing bracket
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// yamlParser turns YAML nodes into values. Aliases are expanded; budget bounds how much that can make.
type yamlParser struct {
	budget int
}

func parseYAML(data []byte) ([]*value, error) {
	p := yamlParser{budget: len(data) + 100_000}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var docs []*value
	for {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, err
		}
		v, err := p.value(&n, 0)
		if err != nil {
			return docs, err
		}
		docs = append(docs, v)
	}
}

func (p *yamlParser) value(n *yaml.Node, depth int) (*value, error) {
	p.budget--
	switch {
	case depth > maxNesting:
		return nil, fmt.Errorf("yaml: line %d: nested more than %d deep", n.Line, maxNesting)
	case p.budget < 0:
		return nil, fmt.Errorf("yaml: line %d: the aliases expand to too much", n.Line)
	}
	v := &value{line: n.Line}
	switch n.Kind {
	case yaml.DocumentNode:
		return p.value(n.Content[0], depth)
	case yaml.AliasNode:
		return p.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		v.kind = listValue
		for _, c := range n.Content {
			item, err := p.value(c, depth+1)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, item)
		}
		return v, nil
	case yaml.MappingNode:
		v.kind = objectValue
		return v, p.mapping(v, n, depth)
	case yaml.ScalarNode:
		return v, p.scalar(v, n)
	}
	return v, nil
}

func (p *yamlParser) mapping(v *value, n *yaml.Node, depth int) error {
	var merged []member
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		item, err := p.value(n.Content[i+1], depth+1)
		if err != nil {
			return err
		}
		for key.Kind == yaml.AliasNode {
			key = key.Alias
		}
		switch {
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			if merged, err = mergeKeys(merged, item, key.Line); err != nil {
				return err
			}
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			return fmt.Errorf("yaml: line %d: key %q is not a string; put it in quotes", key.Line, key.Value)
		default:
			v.fields = append(v.fields, member{key.Value, item})
		}
	}
	for _, m := range merged { // "<<": keys that the mapping has itself win
		if v.get(m.name) == nil {
			v.fields = append(v.fields, m)
		}
	}
	return nil
}

func mergeKeys(merged []member, from *value, line int) ([]member, error) {
	switch from.kind {
	case objectValue:
		return append(merged, from.fields...), nil
	case listValue:
		for _, item := range from.items {
			if item.kind != objectValue {
				return nil, fmt.Errorf("yaml: line %d: << of %s", line, item)
			}
			merged = append(merged, item.fields...)
		}
		return merged, nil
	}
	return nil, fmt.Errorf("yaml: line %d: << of %s", line, from)
}

func (p *yamlParser) scalar(v *value, n *yaml.Node) error {
	switch tag := n.ShortTag(); tag {
	case "!!null":
		v.kind = nullValue
		return nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return err
		}
		v.kind, v.text = boolValue, strconv.FormatBool(b)
		return nil
	case "!!int", "!!float":
		return yamlNumber(v, n)
	case "!!str", "!!timestamp":
		v.kind, v.text = textValue, n.Value
		return nil
	default:
		return fmt.Errorf("yaml: line %d: the tag %s is not supported", n.Line, tag)
	}
}

func yamlNumber(v *value, n *yaml.Node) error {
	v.kind = numberValue
	var i int64
	if n.Decode(&i) == nil && n.ShortTag() == "!!int" {
		v.text = strconv.FormatInt(i, 10)
		return nil
	}
	var f float64
	if err := n.Decode(&f); err != nil {
		return err
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("yaml: line %d: %s is not a number that JSON has", n.Line, n.Value)
	}
	v.text = strconv.FormatFloat(f, 'g', -1, 64)
	return nil
}
