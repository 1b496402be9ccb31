package cutover

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"replicator/pkg/evidence"
	"replicator/pkg/offsets"
	"replicator/pkg/stranded"
)

// exported is a file that holds stranded records, as a call of this run wrote it.
type exported struct {
	file, sha256 string
	rows         []evidence.StrandedRow
	gone         bool // it is not there as it was written
}

// look sees whether the file is still there.
func (e *exported) look() {
	sum, err := sumOf(e.file)
	e.gone = err != nil || sum != e.sha256
}

func (e *exported) String() string {
	n := int64(0)
	for _, row := range e.rows {
		n += row.Records
	}
	text := fmt.Sprintf("%d records in %s, sha256 %s", n, e.file, e.sha256)
	if e.gone {
		text += ", which is not there any more"
	}
	return text
}

// exportsIn are the files that the events of a run tell of.
func exportsIn(events []evidence.Event) (files []exported) {
	for _, e := range events {
		if e.Kind != evidence.KindStranded {
			continue
		}
		doc, err := evidence.Decode[evidence.StrandedDoc](e)
		switch n := len(files) - 1; {
		case err != nil || doc.File == "":
		case e.Part > 1 && n >= 0:
			files[n].rows = append(files[n].rows, doc.Rows...)
		default:
			files = withExport(files, exported{file: doc.File, sha256: doc.SHA256, rows: doc.Rows})
		}
	}
	return files
}

// withExport adds a file. It is told of again when its call was killed before it appeared.
func withExport(files []exported, f exported) []exported {
	return append(slices.DeleteFunc(files, func(e exported) bool { return e.file == f.file && e.sha256 == f.sha256 }), f)
}

// export writes the records to a file. What an earlier call of this run has exported, and
// was killed before that was noted, is not exported again as long as its file is there.
func (r *run) export(ctx context.Context, report stranded.Report, opts stranded.Options) (string, error) {
	rest, err := r.notExported(ctx, report)
	if err == nil && rest.Records > 0 {
		err = r.exportFile(ctx, rest, opts)
	}
	if err != nil {
		return "", fmt.Errorf("export stranded records: %w", err)
	}
	return r.exportedTo(), nil
}

// exportedTo names the files that calls of this run have written.
func (r *run) exportedTo() string {
	var files []string
	for i := range r.exports {
		f := &r.exports[i]
		f.look()
		files = append(files, f.String())
	}
	return strings.Join(files, "; ")
}

// notExported is what the report has beyond the files that are there.
func (r *run) notExported(ctx context.Context, report stranded.Report) (stranded.Report, error) {
	since := map[offsets.Lane]stranded.Since{}
	for _, rg := range report.Ranges {
		since[rg.Lane] = stranded.Since{From: rg.From, LeaderEpoch: -1}
	}
	there := int64(0)
	for i := range r.exports {
		f := &r.exports[i]
		f.look()
		for _, row := range f.rows {
			lane := offsets.Lane{Topic: row.Topic, Partition: row.Partition}
			if at, ok := since[lane]; ok && !f.gone && row.From == at.From {
				since[lane] = stranded.Since{From: row.To, LeaderEpoch: -1}
				there += row.Records
			}
		}
	}
	if there == 0 {
		return report, nil
	}
	rest, err := stranded.Find(ctx, r.Old.Cluster, since)
	if err == nil && there+rest.Records != report.Records {
		return report, nil // the logs are not what they were: all of it, in a file of its own
	}
	return rest, err
}

// exportFile writes the records of a report to a file, which appears when it is complete and
// replaces none. The run's events tell of it before, so that no file of a run is unknown.
func (r *run) exportFile(ctx context.Context, report stranded.Report, opts stranded.Options) error {
	name, err := freeName(r.req.ExportTo)
	if err != nil {
		return err
	}
	part := name + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what a killed call left there
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	result, err := stranded.ExportFile(ctx, r.Old.Cluster, report, f, opts)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	doc := strandedDoc(report)
	doc.Decision, doc.File, doc.SHA256 = string(Export), name, result.SHA256
	if err := r.event(ctx, evidence.KindStranded, "stranded", doc); err != nil {
		return err
	}
	if err := publish(part, name); err != nil {
		return err
	}
	r.exports = withExport(r.exports, exported{file: name, sha256: result.SHA256, rows: doc.Rows})
	return nil
}

// freeName is the whole path of a file that is not there yet: the one that is named, or with a number.
func freeName(name string) (string, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	ext := filepath.Ext(name)
	free := name
	for n := 2; ; n++ {
		found, err := os.Lstat(free)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return free, nil
		case err != nil:
			return "", err
		case found.IsDir():
			return "", fmt.Errorf("%s is a directory: name a file with --export-to", free)
		}
		free = fmt.Sprintf("%s.%d%s", strings.TrimSuffix(name, ext), n, ext)
	}
}

// publish gives a complete file its name. A link fails where a rename would replace; where a
// file system has no links, a look has to do.
func publish(part, name string) error {
	err := os.Link(part, name)
	if err == nil {
		err = os.Remove(part)
	} else if _, there := os.Lstat(name); errors.Is(there, fs.ErrNotExist) {
		err = os.Rename(part, name)
	} else {
		err = fmt.Errorf("%s has appeared meanwhile: run the command again, the records go to another file", name)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func sumOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
