package kubebench

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/test/bench"
)

func TestMarkdown(t *testing.T) {
	r := &Report{}
	for _, row := range []string{"idle", "podstart", "idle"} {
		r.Add(&Table{Row: row, Command: "make kubebench", Date: time.Unix(0, 0), Machine: bench.Machine{Commit: "abc", Load: 3},
			Head: []string{"what", "n"}, Lines: [][]string{{"one", "1"}}, Notes: []string{"A note."}})
	}
	page := r.Markdown("old\n\n#### " + titles["watchers"] + "\n\nkept\n\n#### " + titles["idle"] + "\n\nold\n")
	for _, want := range []string{"| what | n |\n|---|--:|\n| one | 1 |\n\n- A note.\n", "1970-01-01 00:00, commit abc, `make kubebench`", "had other work", "every node\n\nkept\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
	if strings.Contains(page, "old") || strings.Count(page, titles["idle"]) != 1 || strings.Index(page, titles["podstart"]) > strings.Index(page, titles["idle"]) {
		t.Errorf("want the rows in their order, each once, and nothing else:\n%s", page)
	}
	if again := r.Markdown(page); again != page {
		t.Errorf("a second time: %s", cmp.Diff(page, again))
	}
}

func TestCells(t *testing.T) {
	var s, o ms
	for i := range 200 {
		s, o = append(s, float64(i+1)), append(o, 2*float64(i+1))
	}
	if got := s.cell(); got != "100 / 198 / 200" {
		t.Errorf("got %s", got)
	}
	if got := o.against(s); got != "2.00 / 2.00" {
		t.Errorf("got %s", got)
	}
	if got := (ms{}).cell(); got != "-" {
		t.Errorf("got %s of nothing", got)
	}
}

const audit = `{"auditID":"1","stage":"ResponseStarted","verb":"watch","requestURI":"/api/v1/pods?watch=true","user":{"username":"system:serviceaccount:tortie-system:tortie-agent"},"objectRef":{"resource":"pods"},"requestReceivedTimestamp":"2026-01-02T03:04:05.000006Z"}
{"auditID":"1","stage":"ResponseComplete","verb":"watch","requestURI":"/api/v1/pods?watch=true","user":{"username":"system:serviceaccount:tortie-system:tortie-agent"},"objectRef":{"resource":"pods"}}
{"auditID":"2","verb":"patch","user":{"username":"system:serviceaccount:tortie-system:tortie-agent"},"objectRef":{"resource":"nodes","subresource":"status"}}
{"auditID":"3","verb":"get","requestURI":"/version?x=y","user":{"username":"system:serviceaccount:tortie-system:tortie-controllers"}}
{"auditID":"4","verb":"get","user":{"username":"admin"},"objectRef":{"resource":"pods"}}
{"auditID":"5","verb":"get","us`

func TestReadAudit(t *testing.T) {
	var got []string
	err := readAudit(strings.NewReader(audit), func(r *request) { got = append(got, r.who()+": "+r.what()) })
	want := []string{"tortie-agent: watch pods", "tortie-agent: patch nodes/status", "tortie-controllers: get /version"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	if err := readAudit(strings.NewReader("{no json\n"), func(*request) {}); err == nil {
		t.Error("a line that is none was taken")
	}
}
