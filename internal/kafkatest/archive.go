package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
)

// classArchive returns the options that have a JVM map Kafka's classes from an
// archive instead of loading and verifying them from jars. That halves the time
// and the CPU of a start (4.3.1: 1.9 s to 1.05 s). The archive is made once for
// a Kafka and a JVM, by a broker that starts and stops. Without one a broker is
// only slower, so a JVM that cannot make it is no error.
func classArchive(ctx context.Context, libs, version string) ([]string, error) {
	java, err := javaPath()
	if err != nil {
		return nil, err
	}
	path, err := archivePath(libs, java)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		libsMu.Lock()
		defer libsMu.Unlock()
		unlock, lockErr := lockFile(libs + ".lock")
		if lockErr != nil {
			return nil, fmt.Errorf("lock the Kafka cache: %w", lockErr)
		}
		defer unlock()
		if info, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := makeArchive(ctx, libs, version, path); err != nil {
				return nil, fmt.Errorf("archive the classes of Kafka %s: %w", version, err)
			}
			info, err = os.Stat(path)
		}
	}
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		return nil, nil
	}
	return useArchive(path), nil
}

// archivePath names the archive after the JVM: another one would not take it.
func archivePath(libs, java string) (string, error) {
	java, err := filepath.EvalSymlinks(java)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(java)
	if err != nil {
		return "", err
	}
	jvm := fnv.New64a()
	fmt.Fprintln(jvm, java, info.Size(), info.ModTime().UnixNano())
	return filepath.Join(libs, fmt.Sprintf("classes-%x.jsa", jvm.Sum64())), nil
}

// useArchive keeps the JVM quiet and running if it does not like the archive.
func useArchive(path string) []string {
	return []string{"-XX:SharedArchiveFile=" + path, "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off"}
}

// makeArchive leaves an archive at path, an empty one if this JVM makes none.
func makeArchive(ctx context.Context, libs, version, path string) error {
	half := path + ".half" // ours alone: the cache is locked
	if err := os.RemoveAll(half); err != nil {
		return err
	}
	cfg := Config{Name: "training", Version: version,
		JVM: []string{"-XX:ArchiveClassesAtExit=" + half, "-Xlog:cds=off", "-Xlog:cds+dynamic=off"}}.withDefaults()
	c, err := launch(ctx, cfg, libs, nil)
	if err == nil {
		err = c.Broker(1).Stop()
		c.Close()
	}
	if _, statErr := os.Stat(half); err != nil || statErr != nil {
		if ctx.Err() != nil {
			return ctx.Err() // cut off: the next one tries again
		}
		if err := os.WriteFile(half, nil, 0o644); err != nil {
			return err
		}
	}
	return os.Rename(half, path)
}
