// Command mutate asks what the tests would notice: it makes many small mistakes in the code that decides a packet's fate,
// one at a time, and sees whether a test fails for each.
//
//	source --> mutants --> clones in an overlay --> test binaries --> one run per mutant --> docs/mutation.md
//	                            ^        |
//	                            +--------+ those that don't compile go
//
// All mutants of a package are compiled at once. Each is a copy of its function, and the function asks the environment
// whether one of its copies is to run in its place; so a mutant costs one run of the tests, and not one build. The tree is
// never changed: the copies are in an overlay (go build -overlay).
//
//	operators.go   which mistakes are made, as edits of the source
//	clone.go       a file with the copies of its mutated functions
//	build.go       the overlay, and which mutants compile
//	run.go         runs of the tests; results, kept in a file so that a run that was broken off goes on
//	report.go      docs/mutation.md: the score, and the survivors with reasons
//	main.go        what is mutated, and by which tests it is judged
//
// A mutant that no test kills is either a gap in the tests, which a new case closes, or changes nothing that matters:
// then testdata/reasons.txt says why. A reason for a mutant that is killed, or is not made any more, is an error.
package main
