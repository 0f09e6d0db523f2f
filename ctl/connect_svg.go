package ctl

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// Measures of the picture, in pixels. Text is measured by its letters: nobody tells us the font.
const (
	svgCellW   = 68
	svgCellH   = 30
	svgGap     = 10 // between namespaces
	svgMargin  = 24
	svgLetter  = 6.7 // mean width of a letter of the labels
	svgTitle   = 34
	svgLegend  = 56
	svgMaxName = 36 // letters of a label
)

// Colours of the picture: ones that can be told apart also by those who don't see red and green.
var svgFill = map[level]string{nothing: "#eceff3", some: "#f2c14e", all: "#2a9d8f"}

var svgInk = map[level]string{nothing: "#9aa5b1", some: "#3d2c00", all: "#ffffff"}

// drawSVG draws the matrix.
func drawSVG(w io.Writer, c *connectivity) error {
	d := svgDrawing{c: c, rows: c.sources(), cols: c.destinations()}
	d.measure()
	d.begin()
	d.spaces()
	d.labels()
	for r, i := range d.rows {
		for k, j := range d.cols {
			d.cell(d.x[k], d.y[r], i, j)
		}
	}
	d.legend()
	d.b.WriteString("</svg>\n")
	_, err := io.WriteString(w, d.b.String())
	return err
}

type svgDrawing struct {
	c             *connectivity
	b             strings.Builder
	rows, cols    []int
	x, y          []float64 // of each column and row
	left, top     float64   // of the matrix
	width, height float64
	under         float64 // y of the matrix's end
}

// measure places rows and columns: a gap comes before each namespace.
func (d *svgDrawing) measure() {
	longest := func(groups []int) float64 {
		n := 0
		for _, i := range groups {
			n = max(n, utf8.RuneCountInString(shorten(d.c.groups[i].name, svgMaxName)))
		}
		return float64(n) * svgLetter
	}
	slant := longest(d.cols) * math.Sin(math.Pi/4)
	d.left = svgMargin + longest(d.rows) + 14
	d.top = svgMargin + svgTitle + slant + 20
	place := func(groups []int, start, size float64) (at []float64, end float64) {
		space := ""
		for n, i := range groups {
			if n > 0 && d.c.groups[i].space != space {
				start += svgGap
			}
			space = d.c.groups[i].space
			at = append(at, start)
			start += size
		}
		return at, start
	}
	var right float64
	d.x, right = place(d.cols, d.left, svgCellW)
	d.y, d.under = place(d.rows, d.top, svgCellH)
	d.width = math.Max(right+slant+svgMargin, 620)
	d.height = d.under + svgLegend + svgMargin + 18*float64(len(d.c.notes))
}

func (d *svgDrawing) begin() {
	fmt.Fprintf(&d.b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %[1]g %[2]g" font-family="Inter, 'DejaVu Sans', Helvetica, Arial, sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#ffffff"/>
<text x="%d" y="%d" font-size="18" font-weight="600" fill="#1f2933">%s</text>
`, math.Ceil(d.width), math.Ceil(d.height), svgMargin, svgMargin+16, escape(d.c.title))
}

// spaces draws a pale band behind the rows of every other namespace, so that the eye keeps its line.
func (d *svgDrawing) spaces() {
	for start := 0; start < len(d.rows); {
		end := start
		for end+1 < len(d.rows) && d.c.groups[d.rows[end+1]].space == d.c.groups[d.rows[start]].space {
			end++
		}
		fmt.Fprintf(&d.b, `<rect x="%.1f" y="%.1f" width="4" height="%.1f" rx="2" fill="#c3ccd6"/>`+"\n",
			d.left-9, d.y[start]+1, d.y[end]-d.y[start]+svgCellH-2)
		start = end + 1
	}
}

func (d *svgDrawing) labels() {
	for r, i := range d.rows {
		name := d.c.groups[i].name
		fmt.Fprintf(&d.b, `<text x="%.1f" y="%.1f" text-anchor="end" fill="#1f2933">%s<title>%s</title></text>`+"\n",
			d.left-14, d.y[r]+svgCellH/2+4, escape(shorten(name, svgMaxName)), escape(d.members(i)))
	}
	for k, j := range d.cols {
		name := d.c.groups[j].name
		x, y := d.x[k]+svgCellW/2, d.top-8
		fmt.Fprintf(&d.b, `<text transform="translate(%.1f %.1f) rotate(-45)" fill="#1f2933">%s<title>%s</title></text>`+"\n",
			x, y, escape(shorten(name, svgMaxName)), escape(d.members(j)))
	}
	if len(d.rows) > 0 {
		fmt.Fprintf(&d.b, `<text x="%.1f" y="%.1f" text-anchor="end" font-size="11" fill="#7b8794">from \ to</text>`+"\n", d.left-14, d.top-8)
	}
}

// members is the tooltip of a label.
func (d *svgDrawing) members(i int) string {
	names := newNamer(d.c.ends).each(d.c.members(d.c.groups[i].units))
	if len(names) > 40 {
		names = append(names[:40], fmt.Sprintf("and %d more", len(names)-40))
	}
	return strings.Join(names, "\n")
}

func (d *svgDrawing) cell(x, y float64, i, j int) {
	l := d.c.links[i][j]
	if l.none {
		fmt.Fprintf(&d.b, `<path d="M%.1f %.1fh10" stroke="#dde3ea" stroke-width="2"/>`+"\n", x+svgCellW/2-5, y+svgCellH/2)
		return
	}
	tip := fmt.Sprintf("%s -> %s: %s", d.c.groups[i].name, d.c.groups[j].name, l.tip())
	fmt.Fprintf(&d.b, `<g><title>%s</title><rect x="%.1f" y="%.1f" width="%d" height="%d" rx="4" fill="%s"/>`,
		escape(tip), x+1, y+1, svgCellW-2, svgCellH-2, svgFill[l.level])
	if text := l.brief(); text != "" {
		fmt.Fprintf(&d.b, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="11" fill="%s">%s</text>`,
			x+svgCellW/2, y+svgCellH/2+4, svgInk[l.level], escape(text))
	}
	if l.differs { // a corner says that it is not the same on one node
		fmt.Fprintf(&d.b, `<path d="M%.1f %.1fh-9l9 9z" fill="#1f2933" opacity="0.55"/>`, x+svgCellW-2, y+2)
	}
	d.b.WriteString("</g>\n")
}

// tip is a link in full words.
func (l link) tip() string {
	word := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return s
	}
	if l.differs {
		return word(l.allowed) + "; on the same node: " + word(l.own)
	}
	return word(l.allowed)
}

// brief is what fits into a cell.
func (l link) brief() string {
	const letters = 9
	switch {
	case l.level == nothing:
		return ""
	case l.allowed == "":
		return "own node"
	}
	text := strings.TrimPrefix(l.allowed, "tcp ")
	if utf8.RuneCountInString(text) <= letters {
		return text
	}
	if rest, ok := strings.CutPrefix(text, "all but "); ok {
		return shorten("not "+rest, letters)
	}
	// As many as fit, and a plus.
	fits := ""
	for i, r := range text {
		if (r == ',' || r == ';') && i <= letters-2 {
			fits = text[:i] + " +"
		}
	}
	if fits != "" {
		return fits
	}
	return shorten(text, letters)
}

// shorten cuts a text that is too long.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "\u2026"
}

func (d *svgDrawing) legend() {
	x, y := float64(svgMargin), d.under+24
	entries := []struct {
		level
		text string
	}{{all, "everything"}, {some, "some packets (tcp ports by number alone)"}, {nothing, "nothing"}}
	for _, e := range entries {
		fmt.Fprintf(&d.b, `<rect x="%.1f" y="%.1f" width="16" height="16" rx="3" fill="%s"/><text x="%.1f" y="%.1f" fill="#52606d">%s</text>`+"\n",
			x, y, svgFill[e.level], x+22, y+12, e.text)
		x += 22 + float64(len(e.text))*svgLetter + 22
	}
	fmt.Fprintf(&d.b, `<text x="%d" y="%.1f" font-size="11" fill="#7b8794">%s</text>`+"\n",
		svgMargin, y+38, escape(strings.Replace(d.c.extent(), "Compared", "Asked about", 1)))
	for i, n := range d.c.notes {
		fmt.Fprintf(&d.b, `<text x="%d" y="%.1f" font-size="11" fill="#7b8794">%s</text>`+"\n", svgMargin, y+56+18*float64(i), escape(n))
	}
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // writing to memory
	return b.String()
}
