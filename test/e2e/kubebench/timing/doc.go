// Package timing is what test/e2e/kubebench/timed says to test/e2e/kubebench.
package timing
