package calcgraph

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// Measures of the picture, in pixels.
const (
	panelW, panelH = 420, 380
	panelTop       = 64
	panelLeft      = 84
	panelGap       = 240 // room for the names of the left panel's curves
	pictureW       = panelLeft + 2*panelW + panelGap + 190
	pictureH       = panelTop + panelH + 78
)

// Colours that can be told apart also by those who don't see red and green.
var curveInk = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7"}

// curve is a line of the picture: one value for each size.
type curve struct {
	name   string
	values []float64
	text   func(float64) string // of a value
}

// panel is a diagram with logarithmic axes.
type panel struct {
	title  string
	left   float64
	sizes  []float64
	curves []curve
	low    float64 // powers of ten
	high   float64
	tick   func(float64) string
}

// drawCosts draws time on the left and memory on the right, both against the number of endpoints.
func drawCosts(w io.Writer, all []costs, policies int) {
	var sizes []float64
	times := []curve{{name: "first State"}, {name: "a new selector"}, {name: "four sets changed"}, {name: "one label changed"}}
	memory := curve{name: "graph and State", text: megabytes}
	for _, c := range all {
		sizes = append(sizes, float64(c.endpoints))
		for i, d := range []time.Duration{c.snapshot, c.selector, c.flip, c.label} {
			times[i].values, times[i].text = append(times[i].values, d.Seconds()), seconds
		}
		memory.values = append(memory.values, c.live)
	}
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13">`+"\n",
		pictureW, pictureH, pictureW, pictureH)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", pictureW, pictureH)
	fmt.Fprintf(w, `<text x="%d" y="26" font-size="16" fill="#1f2933">What the graph costs against its size: %s policies of five rules on 29 sets, 200 local endpoints</text>`+"\n",
		panelLeft, thousands(policies))
	(&panel{title: "processor time (logarithmic)", left: panelLeft, sizes: sizes, curves: times, tick: seconds}).draw(w)
	(&panel{title: "live heap (logarithmic)", left: panelLeft + panelW + panelGap, sizes: sizes, curves: []curve{memory}, tick: megabytes}).draw(w)
	fmt.Fprintln(w, "</svg>")
}

func (p *panel) draw(w io.Writer) {
	p.low, p.high = math.Inf(1), math.Inf(-1)
	for _, c := range p.curves {
		for _, v := range c.values {
			p.low, p.high = min(p.low, math.Floor(math.Log10(v))), max(p.high, math.Ceil(math.Log10(v)))
		}
	}
	fmt.Fprintf(w, `<text x="%.0f" y="%d" fill="#1f2933" font-weight="bold">%s</text>`+"\n", p.left, panelTop-12, p.title)
	for d := p.low; d <= p.high; d++ {
		y := p.y(math.Pow(10, d))
		fmt.Fprintf(w, `<path d="M%.1f %.1fh%d" stroke="#cbd2d9"/><text x="%.1f" y="%.1f" text-anchor="end" fill="#52606d">%s</text>`+"\n",
			p.left, y, panelW, p.left-8, y+4, p.tick(math.Pow(10, d)))
	}
	for _, n := range p.sizes {
		x := p.x(n)
		fmt.Fprintf(w, `<path d="M%.1f %dv%d" stroke="#e4e7eb"/><text x="%.1f" y="%d" text-anchor="middle" fill="#52606d">%s</text>`+"\n",
			x, panelTop, panelH, x, panelTop+panelH+20, thousands(int(n)))
	}
	fmt.Fprintf(w, `<text x="%.1f" y="%d" text-anchor="middle" fill="#1f2933">endpoints (logarithmic)</text>`+"\n", p.left+panelW/2, panelTop+panelH+46)
	labels := p.places()
	for i, c := range p.curves {
		ink := curveInk[i%len(curveInk)]
		var line strings.Builder
		for j, v := range c.values {
			fmt.Fprintf(&line, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[j == 0], p.x(p.sizes[j]), p.y(v))
			fmt.Fprintf(w, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"><title>%s endpoints: %s</title></circle>`+"\n",
				p.x(p.sizes[j]), p.y(v), ink, thousands(int(p.sizes[j])), c.text(v))
		}
		fmt.Fprintf(w, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", line.String(), ink)
		fmt.Fprintf(w, `<text x="%.1f" y="%.1f" fill="%s">%s: %s</text>`+"\n",
			p.left+panelW+10, labels[i]+4, ink, c.name, c.text(c.values[len(c.values)-1]))
	}
}

// places is where the names of the curves stand: at their ends, but not on one another. Curves come from the top down.
func (p *panel) places() []float64 {
	const least = 17
	var out []float64
	for i, c := range p.curves {
		y := p.y(c.values[len(c.values)-1])
		if i > 0 && y < out[i-1]+least {
			y = out[i-1] + least
		}
		out = append(out, y)
	}
	return out
}

func (p *panel) x(n float64) float64 {
	first, last := math.Log10(p.sizes[0]), math.Log10(p.sizes[len(p.sizes)-1])
	return p.left + panelW*(math.Log10(n)-first)/max(last-first, 1e-9)
}

func (p *panel) y(v float64) float64 {
	return panelTop + panelH*(1-(math.Log10(v)-p.low)/max(p.high-p.low, 1))
}

func seconds(s float64) string {
	for _, u := range []struct {
		of   float64
		name string
	}{{1, "s"}, {1e-3, "ms"}, {1e-6, "us"}} {
		if s >= u.of*0.9999 {
			return strings.TrimSuffix(fmt.Sprintf("%.3g", s/u.of), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%.3g ns", s*1e9)
}

func megabytes(b float64) string {
	if b >= 1e9*0.9999 {
		return fmt.Sprintf("%.3g GB", b/1e9)
	}
	return fmt.Sprintf("%.3g MB", b/1e6)
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
