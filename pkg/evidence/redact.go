package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
)

// redacted stands for what must not be seen, as in package cluster.
const redacted = "[redacted]"

// minSecret is how long a value must be to be looked for: shorter ones stand in ordinary words.
const minSecret = 4

const secretWord = `(?:password|passwd|passphrase|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key)`

// What secrets look like in texts of people and of their commands. The last group of each is the secret.
var secretShapes = []*regexp.Regexp{
	regexp.MustCompile(`(?is)()(-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z))`),
	regexp.MustCompile(`(?i)([a-z][a-z0-9+.-]*://)([^/\s:@]*:[^/\s@]+)@`),
	regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+)([a-z0-9._~+/=-]{8,})`),
	regexp.MustCompile(`()(\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*)`),
	regexp.MustCompile(`(?i)(-[\w-]*` + secretWord + `[\w-]*\s+)("[^"]*"|'[^']*'|[^\s-]\S*)`),
	regexp.MustCompile(`(?i)(` + secretWord + `[\w.-]*["']?\s*[=:]\s*)("[^"]*"|'[^']*'|[^\s,;]+)`),
}

var (
	secretName = regexp.MustCompile(`(?i)` + secretWord)
	secretFlag = regexp.MustCompile(`(?i)^--?[\w.-]*` + secretWord + `[\w.-]*$`)
)

// redactor keeps secrets out of documents: the values it was given wherever they stand, and what
// looks like a secret where people or their commands write.
type redactor struct {
	values []string
	forms  [][]byte // of values, as JSON has them
}

func newRedactor(secrets []string) (*redactor, error) {
	r := &redactor{}
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		form, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("encode a secret: %w", err)
		}
		r.values = append(r.values, s)
		r.forms = append(r.forms, form[1:len(form)-1])
	}
	return r, nil
}

// freeText are the kinds that hold what people and commands wrote; the others have names and
// numbers of Kafka, in many rows.
var freeText = map[Kind]bool{
	KindPlan: true, KindGates: true, KindChecks: true, KindAuthority: true, KindHook: true, KindStep: true, KindOutcome: true,
}

// clean takes the secrets out of a document in JSON.
func (r *redactor) clean(kind Kind, body []byte) ([]byte, error) {
	known := false
	for _, form := range r.forms {
		known = known || bytes.Contains(body, form)
	}
	if !known && !freeText[kind] {
		return body, nil
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("look for secrets in %s: %w", kind, err)
	}
	changed := false
	doc = r.walk(doc, freeText[kind], &changed)
	if !changed {
		return body, nil
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return body, nil
}

func (r *redactor) walk(v any, free bool, changed *bool) any {
	switch v := v.(type) {
	case string:
		out := r.text(v, free)
		*changed = *changed || out != v
		return out
	case []any:
		for i := range v {
			flag, isText := "", false
			if i > 0 {
				flag, isText = v[i-1].(string)
			}
			if value, ok := v[i].(string); ok && isText && free && secretFlag.MatchString(flag) && !reference(value) {
				v[i], *changed = redacted, true // an argument behind --password
				continue
			}
			v[i] = r.walk(v[i], free, changed)
		}
		return v
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			name := r.text(key, false)
			*changed = *changed || name != key
			if text, ok := value.(string); ok && free && secretName.MatchString(key) && text != "" && !reference(text) {
				out[name], *changed = redacted, true // an option's value
				continue
			}
			out[name] = r.walk(value, free, changed)
		}
		return out
	}
	return v
}

func (r *redactor) text(s string, free bool) string {
	for _, value := range r.values {
		s = strings.ReplaceAll(s, value, redacted)
	}
	if !free {
		return s
	}
	for _, shape := range secretShapes {
		s = replaceSecret(shape, s)
	}
	return s
}

// replaceSecret replaces the last group of each match.
func replaceSecret(shape *regexp.Regexp, s string) string {
	var b strings.Builder
	end := 0
	for _, m := range shape.FindAllStringSubmatchIndex(s, -1) {
		from, to := m[len(m)-2], m[len(m)-1]
		if reference(s[from:to]) {
			continue
		}
		b.WriteString(s[end:from] + redacted)
		end = to
	}
	return b.String() + s[end:]
}

// reference tells whether a text says where a secret lies, which is none.
func reference(s string) bool {
	s = strings.Trim(s, `"'`)
	return strings.HasPrefix(s, "file:/") || strings.HasPrefix(s, "env:") || strings.HasPrefix(s, redacted)
}
