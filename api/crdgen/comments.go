package crdgen

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
)

// readComments returns what the Go source in a folder says of its types ("Rule") and of the fields of its structs by
// their JSON names ("Rule.icmp").
func readComments(dir string) (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "types*.go"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("reading the comments of %s: %d files, %w", dir, len(files), err)
	}
	out := map[string]string{}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading comments: %w", err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("reading comments: %w", err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				for _, spec := range g.Specs {
					if t, ok := spec.(*ast.TypeSpec); ok {
						noteType(out, g.Doc, t)
					}
				}
			}
		}
	}
	return out, nil
}

func noteType(out map[string]string, doc *ast.CommentGroup, t *ast.TypeSpec) {
	out[t.Name.Name] = oneLine(doc)
	s, ok := t.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, f := range s.Fields.List {
		text := oneLine(f.Comment)
		if text == "" {
			text = oneLine(f.Doc)
		}
		if f.Tag == nil || text == "" {
			continue
		}
		_, tag, _ := strings.Cut(f.Tag.Value, `json:"`)
		name, _, _ := strings.Cut(strings.TrimSuffix(tag, "\"`"), ",")
		out[t.Name.Name+"."+name] = text
	}
}

func oneLine(c *ast.CommentGroup) string {
	words := strings.Fields(c.Text())
	for i, w := range words {
		if w == "nil" {
			words[i] = "none"
		}
	}
	return strings.Join(words, " ")
}
