package observe

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable returns s with everything that a terminal could take for a command
// escaped: control characters, invisible ones, and those that change the
// direction of text.
func Printable(s string) string {
	if clean(s) {
		return s
	}
	return string(appendEscaped(make([]byte, 0, len(s)+16), s, ""))
}

func clean(s string) bool {
	for i, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			return false
		}
	}
	return true
}

// appendEscaped appends s with what does not print as \uXXXX, which is also
// valid inside a string of JSON. The characters of keep stay as they are.
func appendEscaped(dst []byte, s, keep string) []byte {
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, `\ufffd`...)
		case unicode.IsPrint(r) || strings.ContainsRune(keep, r):
			dst = append(dst, s[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			dst = fmt.Appendf(dst, `\u%04x\u%04x`, high, low)
		default:
			dst = fmt.Appendf(dst, `\u%04x`, r)
		}
		s = s[size:]
	}
	return dst
}

// lineWriter escapes what does not print in lines that are written whole, one
// a call.
type lineWriter struct{ w io.Writer }

func (l lineWriter) Write(line []byte) (int, error) {
	body, end := string(line), ""
	if n := len(body); n > 0 && body[n-1] == '\n' {
		body, end = body[:n-1], "\n"
	}
	if !clean(body) {
		out := append(appendEscaped(make([]byte, 0, len(line)+32), body, "\t"), end...)
		if _, err := l.w.Write(out); err != nil {
			return 0, err
		}
		return len(line), nil
	}
	return l.w.Write(line)
}
