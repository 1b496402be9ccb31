package evidence

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxArchive is how large an archive may be when it is opened: all files at their largest.
	maxArchive = 256 << 20
	// maxMembers is how many members an archive may have.
	maxMembers = 16
	// maxWindow is what the decoder of an archive may keep in memory.
	maxWindow = 8 << 20
)

// contents are the files of a bundle, read whole, and what is wrong with how they lie there.
type contents struct {
	files  map[string][]byte // of those a bundle has
	faults []string
}

func (c *contents) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// readBundle reads a directory or an archive. It never writes, and follows no link.
func readBundle(name string) (*contents, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	var c *contents
	switch {
	case info.IsDir():
		c, err = readDir(name)
	case info.Mode().IsRegular():
		c, err = readArchive(f)
	default:
		err = errors.New("it is neither a directory nor a file")
	}
	if err != nil {
		return nil, fmt.Errorf("open bundle %s: %w", name, err)
	}
	if c.files[eventsFile] == nil && len(c.faults) == 0 {
		return nil, fmt.Errorf("open bundle %s: there is no %s: this is not a bundle", name, eventsFile)
	}
	return c, nil
}

func readDir(dir string) (*contents, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// With nothing of a bundle in it, it is the wrong directory rather than a bundle that
	// was tampered with.
	if !slices.ContainsFunc(entries, func(e os.DirEntry) bool { _, ours := largest[e.Name()]; return ours }) {
		return nil, fmt.Errorf("there is no %s: this is not a bundle", eventsFile)
	}
	c := &contents{files: map[string][]byte{}}
	for _, entry := range entries {
		name := entry.Name()
		_, ours := largest[name]
		switch {
		case ours && entry.Type().IsRegular():
			body, err := readMember(root, name)
			if err != nil {
				return nil, err
			}
			c.files[name] = body
		case name == scratch(reportFile) || name == scratch(summaryFile) || name == scratch(manifestFile):
			// what a killed run was about to write
		case ours:
			c.fault("%s is not a file", name)
		default:
			c.fault("%q does not belong to the bundle", name)
		}
	}
	return c, nil
}

func readMember(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f, name)
}

// readArchive reads a tar, compressed by zstd or gzip.
func readArchive(r io.Reader) (*contents, error) {
	buffered := bufio.NewReader(r)
	magic, _ := buffered.Peek(4) // a shorter file has another magic
	var plain io.Reader
	switch {
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		dec, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		defer dec.Close()
		plain = dec
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		dec, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, err
		}
		plain = dec
	default:
		return nil, errors.New("it is neither a directory nor a .tar.zst or .tar.gz")
	}
	bounded := &io.LimitedReader{R: plain, N: maxArchive}
	c := &contents{files: map[string][]byte{}}
	err := c.readTar(bounded)
	if err == nil {
		// The checksum of the compression stands behind the last member.
		_, err = io.Copy(io.Discard, bounded)
	}
	switch {
	case bounded.N <= 0:
		c.fault("the archive holds more than %d bytes", maxArchive)
	case err != nil:
		c.fault("the archive is damaged or cut: %v", err)
	}
	return c, nil
}

// readTar reads the members of an archive until it ends or cannot be read.
func (c *contents) readTar(r io.Reader) error {
	top := ""
	archive := tar.NewReader(r)
	for members := 0; ; members++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if members == maxMembers {
			return fmt.Errorf("it has more than %d members", maxMembers)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		dir, name := path.Split(h.Name)
		if members == 0 {
			top = dir
		}
		_, ours := largest[name]
		switch {
		case !fs.ValidPath(h.Name) || strings.Count(h.Name, "/") > 1 || dir != top:
			c.fault("%q is not where files of a bundle are", h.Name)
		case !ours:
			c.fault("%q does not belong to the bundle", h.Name)
		case h.Typeflag != tar.TypeReg:
			c.fault("%s is not a file", name)
		case c.files[name] != nil:
			c.fault("%s is there twice", name)
		default:
			if c.files[name], err = readBounded(archive, name); err != nil {
				return err
			}
		}
	}
}

// Pack writes a bundle to one file, .tar.zst or .tar.gz by its name, whole or not at all.
func Pack(dir, archive string) error {
	c, err := readBundle(dir)
	if err != nil {
		return err
	}
	if len(c.faults) > 0 {
		return fmt.Errorf("pack bundle %s: %s", dir, c.faults[0])
	}
	var body bytes.Buffer
	switch {
	case strings.HasSuffix(archive, ".tar.zst"):
		enc, err := zstd.NewWriter(&body, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(maxWindow))
		if err != nil {
			return fmt.Errorf("pack bundle: %w", err)
		}
		err = errors.Join(writeTar(enc, filepath.Base(dir), c.files), enc.Close())
		if err != nil {
			return fmt.Errorf("pack bundle: %w", err)
		}
	case strings.HasSuffix(archive, ".tar.gz"):
		enc := gzip.NewWriter(&body)
		if err := errors.Join(writeTar(enc, filepath.Base(dir), c.files), enc.Close()); err != nil {
			return fmt.Errorf("pack bundle: %w", err)
		}
	default:
		return fmt.Errorf("pack bundle: %s ends neither with .tar.zst nor with .tar.gz", archive)
	}
	return replaceFile(archive, archive+".tmp", &body)
}

// writeTar is the same for the same files, whenever it is called.
func writeTar(w io.Writer, top string, files map[string][]byte) error {
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(top, name), Mode: 0o600, Size: int64(len(files[name])), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(files[name]); err != nil {
			return err
		}
	}
	return archive.Close()
}
