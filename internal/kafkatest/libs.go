package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The pinned versions of Kafka. Others of the same lines are likely to work.
const (
	Kafka4 = "4.3.1" // KRaft, the default
	Kafka3 = "3.9.1" // KRaft, the last line that could also run on ZooKeeper
	Kafka2 = "2.8.2" // with a ZooKeeper of its own
)

const (
	dependencyPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
	fetchTimeout     = 10 * time.Minute // a slow line; 10 to 40 s are normal
	fetchAttempts    = 3
)

type libsConfig struct{ mirrorMaker bool }

// LibsOption widens what [Libs] fetches.
type LibsOption func(*libsConfig)

// WithMirrorMaker adds the jars of MirrorMaker 2 and of its client.
func WithMirrorMaker(c *libsConfig) { c.mirrorMaker = true }

var libsMu sync.Mutex // flock holds between processes; this one holds within

// Libs returns a directory with all jars of a Kafka version, fetched through
// Maven the first time and from the cache afterwards. It is safe to call from
// several goroutines and several processes at once.
func Libs(version string, opts ...LibsOption) (string, error) {
	var cfg libsConfig
	for _, o := range opts {
		o(&cfg)
	}
	name := "kafka-" + version
	if cfg.mirrorMaker {
		name += "-mirrormaker"
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	pom := pomFor(version, cfg)
	dir := filepath.Join(cache, name)
	if whole(dir, pom) {
		return dir, nil
	}
	libsMu.Lock()
	defer libsMu.Unlock()
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return "", fmt.Errorf("lock the Kafka cache: %w", err)
	}
	defer unlock()
	if whole(dir, pom) { // somebody else fetched it while we waited
		return dir, nil
	}
	if err := fetch(dir, pom); err != nil {
		return "", fmt.Errorf("fetch Kafka %s: %w", version, err)
	}
	return dir, nil
}

func cacheDir() (string, error) {
	dir := os.Getenv("KAFKATEST_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil { // no HOME, as in some build containers
			base = os.TempDir()
		}
		dir = filepath.Join(base, "replicator")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the Kafka cache: %w", err)
	}
	return filepath.Abs(dir)
}

// whole tells whether dir was fetched completely and for this very pom. The
// directory gets its name by a rename, so one that is there is complete.
func whole(dir string, pom []byte) bool {
	have, err := os.ReadFile(filepath.Join(dir, "pom.xml"))
	return err == nil && bytes.Equal(have, pom)
}

func fetch(dir string, pom []byte) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return errNoMaven
	}
	half, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".half-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(half) }() // a no-op after the rename
	files := map[string]string{
		"pom.xml":           string(pom),
		"log4j.properties":  log4j1,
		"log4j2.properties": log4j2,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(half, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	var out []byte
	for range fetchAttempts {
		cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "-U", "-f", "pom.xml", dependencyPlugin,
			"-DoutputDirectory="+half, "-DincludeScope=runtime")
		cmd.Dir = half
		cmd.WaitDelay = time.Second
		if out, err = cmd.CombinedOutput(); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("run mvn: %w\n%s", err, lastLines(out, 20))
	}
	if err := os.Chmod(half, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil { // of another pom
		return err
	}
	return os.Rename(half, dir)
}

var errNoMaven = errors.New("mvn is not in PATH (Debian: apt-get install maven)")

// pomFor lists what a broker, its tools and its log need.
func pomFor(version string, cfg libsConfig) []byte {
	deps := []string{
		"org.apache.kafka:kafka_2.13:" + version,
		"org.apache.kafka:kafka-tools:" + version,
	}
	if cfg.mirrorMaker {
		deps = append(deps,
			"org.apache.kafka:connect-mirror:"+version,
			"org.apache.kafka:connect-mirror-client:"+version,
			"org.apache.kafka:connect-runtime:"+version)
	}
	switch {
	case strings.HasPrefix(version, "2."):
		deps = append(deps, "org.slf4j:slf4j-log4j12:1.7.30")
	case strings.HasPrefix(version, "3."):
		deps = append(deps, "org.slf4j:slf4j-reload4j:1.7.36")
	default:
		deps = append(deps, "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
	}
	var b strings.Builder
	b.WriteString("<project>\n  <modelVersion>4.0.0</modelVersion>\n  <groupId>replicator</groupId>\n" +
		"  <artifactId>kafkatest</artifactId>\n  <version>1</version>\n  <packaging>pom</packaging>\n  <dependencies>\n")
	for _, d := range deps {
		p := strings.Split(d, ":")
		fmt.Fprintf(&b, "    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n", p[0], p[1], p[2])
	}
	b.WriteString("  </dependencies>\n</project>\n")
	return []byte(b.String())
}

// Everything goes to stderr: the stdout of a tool is its answer. The level is
// the system property kafkatest.level.
const log4j1 = `log4j.rootLogger=${kafkatest.level}, err
log4j.appender.err=org.apache.log4j.ConsoleAppender
log4j.appender.err.target=System.err
log4j.appender.err.layout=org.apache.log4j.PatternLayout
log4j.appender.err.layout.ConversionPattern=[%d] %p %m (%c)%n
log4j.logger.org.apache.zookeeper=WARN
`

const log4j2 = `status = error
rootLogger.level = ${sys:kafkatest.level:-INFO}
rootLogger.appenderRef.err.ref = err
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = [%d] %p %m (%c)%n
`

// lockFile waits for an exclusive lock that the kernel lets go of when the
// process ends, however it ends.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
