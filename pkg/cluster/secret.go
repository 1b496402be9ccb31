package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxSecretBytes bounds a secret file: a token is a few kilobytes, so what is
// larger is another file by mistake.
const maxSecretBytes = 64 << 10

// redacted is what stands for a value that must not be seen.
const redacted = "[redacted]"

// Secret refers to a secret: "file:/path" or "env:NAME". It holds the
// reference, not the value, which Resolve reads each time it is asked. So a
// printed, logged or marshalled configuration shows where a secret lies and
// never what it is. The zero value is no secret.
type Secret struct {
	ref     string
	literal string
}

// LiteralSecret holds a value itself, for programs and tests that have no
// file to point to. It prints as redacted and cannot come out of a
// configuration file.
func LiteralSecret(value string) Secret { return Secret{literal: value} }

// ParseSecret reads a reference. Its errors never repeat the text, which may
// be a password written where the reference belongs.
func ParseSecret(ref string) (Secret, error) {
	switch {
	case ref == "":
		return Secret{}, nil
	case strings.HasPrefix(ref, "file:") && len(ref) > len("file:"):
		return Secret{ref: ref}, nil
	case strings.HasPrefix(ref, "env:") && len(ref) > len("env:"):
		return Secret{ref: ref}, nil
	}
	return Secret{}, errors.New(`want a reference, "file:/path" or "env:NAME", not the secret itself`)
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s == Secret{} }

// Env returns the variable the secret is read from, or "".
func (s Secret) Env() string {
	name, ok := strings.CutPrefix(s.ref, "env:")
	if !ok {
		return ""
	}
	return name
}

// File returns the file the secret is read from, or "".
func (s Secret) File() string {
	path, ok := strings.CutPrefix(s.ref, "file:")
	if !ok {
		return ""
	}
	return path
}

// Resolve reads the value. A file must not be readable by everybody; one line
// end after the value is dropped.
func (s Secret) Resolve() (string, error) {
	if s.literal != "" {
		return s.literal, nil
	}
	if name := s.Env(); name != "" {
		value, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("read secret %s: the variable is not set", s.ref)
		}
		if value == "" {
			return "", fmt.Errorf("read secret %s: the variable is empty", s.ref)
		}
		return value, nil
	}
	path := s.File()
	if path == "" {
		return "", errors.New("read secret: none is configured")
	}
	value, err := readPrivate(path)
	if err != nil {
		return "", fmt.Errorf("read secret %s: %w", s.ref, err)
	}
	value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	if len(value) == 0 {
		return "", fmt.Errorf("read secret %s: the file is empty", s.ref)
	}
	return string(value), nil
}

// readPrivate reads a small file that not everybody may read. The mode is
// taken from the open file: what was checked is what is read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, bareError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, bareError(err)
	}
	if info.IsDir() {
		return nil, errors.New("it is a directory")
	}
	if mode := info.Mode().Perm(); mode&0o004 != 0 {
		return nil, fmt.Errorf("everybody may read the file (mode %04o): chmod o-rwx it", mode)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return nil, bareError(err)
	}
	if len(data) > maxSecretBytes {
		return nil, fmt.Errorf("the file is larger than %d bytes", maxSecretBytes)
	}
	return data, nil
}

// bareError drops operation and path from a file error; the caller names them.
func bareError(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// String shows the reference, never a value.
func (s Secret) String() string {
	if s.literal != "" {
		return redacted
	}
	return s.ref
}

// GoString keeps %#v from showing the fields.
func (s Secret) GoString() string { return fmt.Sprintf("cluster.Secret(%q)", s.String()) }

// Format keeps every verb of package fmt to String.
func (s Secret) Format(f fmt.State, verb rune) {
	switch {
	case verb == 'q':
		fmt.Fprintf(f, "%q", s.String())
	case verb == 'v' && f.Flag('#'):
		_, _ = io.WriteString(f, s.GoString()) // fmt keeps the error of its writer
	default:
		_, _ = io.WriteString(f, s.String())
	}
}

// MarshalText writes the reference.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a reference.
func (s *Secret) UnmarshalText(text []byte) error {
	parsed, err := ParseSecret(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

var (
	_ fmt.Formatter = Secret{}
	_ fmt.Stringer  = Secret{}
)
