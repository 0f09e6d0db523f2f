// Package selector is the language in which policy selects endpoints by their labels:
//
//	role == "web" && env in {"prod", "test"} && !has(legacy)
//
// The grammar, from the lowest precedence to the highest:
//
//	selector := empty | or                  an empty selector is all()
//	or       := and { "||" and }
//	and      := not { "&&" not }
//	not      := { "!" } prim                an even number of ! is none; ! takes one prim only
//	prim     := "all()" | "global()" | "has(" ident ")" | "(" or ")"
//	          | ident ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
//	          | ident ( "in" | "not in" ) "{" [ string { "," string } [ "," ] ] "}"
//	string   := '"' anything but '"' '"' | "'" anything but "'" "'"      there are no escapes
//	ident    := 1 to 512 of A-Z a-z 0-9 _ . / -
//
// Space and tab may stand between tokens, and inside has( x ) and all( ). "startswith", "endswith" and "notin" are
// accepted. != and "not in" hold for an endpoint that lacks the label; every other comparison needs the label.
//
//	doc.go          this page
//	selector.go     Selector: canonical form, ID, Matches
//	ast.go          the nodes, printing, rewriting
//	parse.go        text to nodes
//	restrict.go     what an index may rely on
package selector
