// Package docs runs what the pages in docs/ and README.md say: their commands with the real programs on pretend machines,
// in the page's order, and their policies against the oracle and the kernel.
//
// How a page is written so that it can be run:
//
//	```console     "$ command", then all that it prints; "two$ command" runs on the machine "two". A line "..." stands for
//	               any lines, "..." within a line for any text. The command must succeed. TOKEN in a command
//	               stands for the token of `tortie store token` that was printed last.
//	```sh          a script, of which each command must succeed; what it prints does not matter
//	```yaml        is checked by `tortie validate`; if its first line is "# NAME", that is the file that it becomes
//	```verdicts    "shop/web -> shop/db tcp 5432 = allow": asked of `tortie explain`, then tried with packets
//	```json, text, go, diff  are only read by people
//
// HTML comments say what only the test must know. Those about one block stand right above it:
//
//	<!-- machines: one two three -->   at the top: the machines that the page speaks of, the first without a prompt's name
//	<!-- recipes -->                   from here on, files are applied when they appear, and deleted at the next heading
//	<!-- exits 4 -->                   the last command of the next block ends with this code
//	<!-- machine: all -->              the next block of sh is run on every machine
//	<!-- file: PATH -->                the next block becomes this file
//	<!-- not run: REASON -->           the next block is not run; docs_test.go lists how many each page may have
//	<!-- run: COMMANDS -->             is run as if it were a block of sh: what makes trouble that the page then finds
//
// A page runs on machines (package machine) with an eth0 on a common network, 192.0.2.11, .12 and so on, and with
// 192.0.2.1 (and 198.51.100.7, 203.0.113.7) outside. systemctl and journalctl are played by this test's binary, which
// reads the unit files that the page installs.
//
//	page_test.go      pages into steps
//	match_test.go     what a command has printed against what the page says
//	shell_test.go     commands on machines
//	bed_test.go       the machines of a page, and the network between them
//	verdict_test.go   verdicts
//	systemd_test.go   systemctl and journalctl
//	docs_test.go      the tests
//	links_test.go     links between pages
//	examples_test.go  examples of help texts
package docs
