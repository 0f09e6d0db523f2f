package bench

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sampleReport() *Report {
	return &Report{
		Machine: Machine{Commit: "abc1234", Kernel: "6.18.0", CPU: "Fast", CPUs: 2, Memory: 24, Load: 0.1},
		Date:    time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC), Took: 90 * time.Second, Size: "full",
		Results: []Result{
			{Row: "cni", Name: "add", What: "ADD, p50", Unit: "ms", Spread: Spread{25.04, 20, 31, 200}, Budget: AtMost(30)},
			{Row: "cni", Name: "rate", What: "ADDs", Unit: "/s", Spread: Spread{49, 49, 49, 1}, Budget: AtLeast(50)},
			{Row: "store", Name: "fsync", What: "fsync", Unit: "ms", Spread: Spread{0.123, 0.1, 0.5, 10}},
			{Row: "rss", Name: "large", What: "agent", Unit: "MB", Spread: Spread{10, 10, 10, 1}, Budget: AtMost(350), Scaled: true},
		},
		Failed: []Failure{{"reboot", "no\nnode"}},
	}
}

func TestVerdict(t *testing.T) {
	var got []string
	for _, r := range sampleReport().Results {
		got = append(got, r.Verdict())
	}
	if diff := cmp.Diff([]string{"met", "not met", "", ""}, got); diff != "" {
		t.Error(diff)
	}
}

func TestMarkdown(t *testing.T) {
	got := sampleReport().Markdown()
	for _, want := range []string{"## 2026-11-22, commit abc1234, Linux 6.18.0",
		"| cni | ADD, p50 | 25.0 ms | 20 to 31 | 200 | <= 30 | met |", "| cni | ADDs | 49 /s |  | 1 | >= 50 | **not met** |",
		"| rss | agent | 10 MB |  | 1 | <= 350 |  |", "Row `reboot` failed: no node", "2 x Fast, 24 GiB. The load average was 0.10"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "other work") {
		t.Errorf("what should not be there in\n%s", got)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := sampleReport().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	got, err := ReadJSON(&b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleReport(), got); diff != "" {
		t.Error(diff)
	}
}

func TestCompare(t *testing.T) {
	was, is := sampleReport(), sampleReport()
	is.Results[0].Spread = Spread{12.5, 12, 13, 200}
	is.Results[1].Spread = Spread{98, 49, 99, 2}
	is.Results = append(is.Results[:2], Result{Row: "new", Name: "one", Unit: "s", Spread: Spread{1, 1, 1, 1}})
	var b bytes.Buffer
	Compare(&b, was, is)
	var got [][]string
	for _, line := range strings.Split(b.String(), "\n")[1:] {
		got = append(got, strings.Fields(line))
	}
	want := [][]string{
		{"cni/add", "25.0", "ms", "12.5", "ms", "0.50", "*"}, {"cni/rate", "49", "/s", "98", "/s", "2.00"},
		{"new/one", "-", "1", "s"}, {"store/fsync", "0.12", "ms", "-"}, {"rss/large", "10", "MB", "-"},
	}
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Error(diff)
	}
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 1234.5: "1234", 99.94: "99.9", 5: "5", 0.5: "0.50", 0.0123: "0.012", -2.345: "-2.35"} {
		if got := figure(v); got != want {
			t.Errorf("figure(%v) = %s, want %s", v, got, want)
		}
	}
}
