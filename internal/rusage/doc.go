// Package rusage tells what this process has used of processors and memory.
package rusage
