package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of a bundle.
const (
	eventsFile   = "events.jsonl"
	manifestFile = "MANIFEST.json"
	reportFile   = "report.html"
	summaryFile  = "summary.json"
)

// largest is how large each file may be. What is larger is not read.
var largest = map[string]int64{eventsFile: 128 << 20, manifestFile: 64 << 10, reportFile: 64 << 20, summaryFile: 1 << 20}

// scratch is the name a file has before it is whole.
func scratch(name string) string { return "." + name + ".tmp" }

// manifest is MANIFEST.json.
type manifest struct {
	Format string `json:"format"` // of report and summary: another one writes them in other words
	Run    string `json:"run"`
	Events int    `json:"events"` // in events.jsonl when this was written; a run that goes on has more
	Head   string `json:"head"`   // hash of the last of them
	Sealed bool   `json:"sealed"` // the run has ended: nothing comes after it
	Files  []file `json:"files"`
}

// file is what a manifest says of a file: of events.jsonl, its first Size bytes.
type file struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Pending: it is being replaced. Who is killed meanwhile leaves the new one, or the old one,
	// which is Was; empty: there was none.
	Pending bool   `json:"pending,omitempty"`
	Was     string `json:"was,omitempty"`
}

// bundle is a directory that a run writes to.
type bundle struct {
	dir    string
	run    string
	events *os.File
	size   int64     // of events.jsonl, of whole lines
	sum    hash.Hash // of its first size bytes
	seq    int
	head   string
	was    map[string]string // hashes of report and summary as they are
	sealed bool              // the manifest says so
}

// openBundle opens or makes the bundle of a run and returns the events it holds. A line that was
// not finished is cut off.
func openBundle(dir, run string) (*bundle, []Event, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make bundle: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, eventsFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open bundle: %w", err)
	}
	b := &bundle{dir: dir, run: run, events: f, sum: sha256.New(), head: origin(run), was: map[string]string{}}
	events, err := b.load()
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, nil, fmt.Errorf("open bundle %s: %w", dir, err)
	}
	return b, events, nil
}

func (b *bundle) load() ([]Event, error) {
	if err := lock(b.events); err != nil {
		return nil, fmt.Errorf("lock %s: %w: is another command at work on this run?", eventsFile, err)
	}
	data, err := readBounded(b.events, eventsFile)
	if err != nil {
		return nil, err
	}
	events, whole, err := readEvents(b.run, data)
	if err != nil {
		return nil, fmt.Errorf("%w; replicator evidence verify says more, a bundle that was moved away is made anew", err)
	}
	b.size = int64(whole)
	b.sum.Write(data[:whole])
	if n := len(events); n > 0 {
		b.seq, b.head = events[n-1].Seq, events[n-1].Hash
	}
	for _, name := range []string{reportFile, summaryFile, manifestFile} {
		_ = os.Remove(filepath.Join(b.dir, scratch(name))) // of a run that was killed; else written over
		body, err := os.ReadFile(filepath.Join(b.dir, name))
		if err == nil {
			b.was[name] = digest(body)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	b.sealed = b.was[manifestFile] != "" // perhaps; it is written anew before an event is
	return events, nil
}

// append writes an event and has it on disk.
func (b *bundle) append(e Event) error {
	line, err := e.Encode()
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if b.size+int64(len(line)) > largest[eventsFile] {
		return fmt.Errorf("write %s: it would be larger than %d bytes", eventsFile, largest[eventsFile])
	}
	if b.sealed {
		if err := b.writeManifest(false, nil); err != nil {
			return err
		}
		b.sealed = false
	}
	// What an earlier attempt left behind the last whole line goes first.
	if err := b.events.Truncate(b.size); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if _, err := b.events.WriteAt(line, b.size); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if err := b.events.Sync(); err != nil {
		return fmt.Errorf("write event: %w", err)
	}
	if b.seq == 0 {
		if err := syncDir(b.dir, filepath.Dir(b.dir)); err != nil {
			return err
		}
	}
	b.size += int64(len(line))
	b.sum.Write(line)
	b.seq, b.head = e.Seq, e.Hash
	return nil
}

// report writes what is made from the events. First the manifest names the files as they will be,
// then they are replaced, then it says that they are: whoever is killed leaves a bundle that holds.
func (b *bundle) report(events []Event, seal bool) error {
	story := Tell(events)
	page, err := story.HTML()
	if err != nil {
		return err
	}
	summary, err := story.Summary()
	if err != nil {
		return err
	}
	bodies := map[string][]byte{reportFile: page, summaryFile: summary}
	if err := b.writeManifest(false, bodies); err != nil {
		return err
	}
	for _, name := range []string{reportFile, summaryFile} {
		if err := b.replace(name, bodies[name]); err != nil {
			return err
		}
	}
	if err := b.writeManifest(seal, nil); err != nil {
		return err
	}
	b.sealed = seal
	return nil
}

// writeManifest writes the manifest. pending are files that will be replaced now.
func (b *bundle) writeManifest(seal bool, pending map[string][]byte) error {
	m := manifest{Format: reportFormat(), Run: b.run, Events: b.seq, Head: b.head, Sealed: seal}
	m.Files = []file{{Name: eventsFile, Size: b.size, SHA256: fmt.Sprintf("%x", b.sum.Sum(nil))}}
	for _, name := range []string{reportFile, summaryFile} {
		body, replaced := pending[name]
		switch {
		case replaced:
			m.Files = append(m.Files, file{Name: name, Size: int64(len(body)), SHA256: digest(body), Pending: true, Was: b.was[name]})
		case b.was[name] != "":
			info, err := os.Lstat(filepath.Join(b.dir, name))
			if err != nil {
				return fmt.Errorf("write manifest: %w", err)
			}
			m.Files = append(m.Files, file{Name: name, Size: info.Size(), SHA256: b.was[name]})
		}
	}
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return b.replace(manifestFile, append(body, '\n'))
}

// replace writes a file whole or not at all.
func (b *bundle) replace(name string, body []byte) error {
	if err := replaceFile(filepath.Join(b.dir, name), filepath.Join(b.dir, scratch(name)), bytes.NewReader(body)); err != nil {
		return err
	}
	b.was[name] = digest(body)
	return nil
}

func replaceFile(path, temporary string, body io.Reader) (err error) {
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temporary) // the error matters
		}
	}()
	_, err = io.Copy(f, body)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

// syncDir has names of new files on disk.
func syncDir(dirs ...string) error {
	for _, dir := range dirs {
		d, err := os.Open(dir)
		if err != nil {
			return fmt.Errorf("sync directory: %w", err)
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return fmt.Errorf("sync directory: %w", err)
		}
	}
	return nil
}

func (b *bundle) close() error { return b.events.Close() }

// readBounded reads a file of a bundle, if it is not too large.
func readBounded(r io.Reader, name string) ([]byte, error) {
	limit := largest[name]
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", name, limit)
	}
	return data, nil
}

// readEvents reads the lines of events.jsonl and checks the chain. It returns the events that
// hold, from the first, and the bytes of their lines. A last line that was not finished is no error.
func readEvents(run string, data []byte) (events []Event, whole int, err error) {
	chain := NewChain(run)
	for number := 1; whole < len(data); number++ {
		line, _, ended := bytes.Cut(data[whole:], []byte("\n"))
		if !ended {
			return events, whole, nil
		}
		e, err := ParseEvent(line)
		if err == nil {
			err = chain.Follow(e)
		}
		if err != nil {
			return events, whole, fmt.Errorf("%s line %d: %w", eventsFile, number, err)
		}
		events = append(events, e)
		whole += len(line) + 1
	}
	return events, whole, nil
}
