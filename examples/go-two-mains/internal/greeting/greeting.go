// Package greeting is shared by both programs.
package greeting

// For returns the greeting for a program.
func For(name string) string { return "Hello from the " + name }
