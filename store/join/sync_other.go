//go:build !unix

package join

// syncDir does nothing: on other systems a directory can't be opened to sync it, and renames are journalled.
func syncDir(string) error { return nil }
