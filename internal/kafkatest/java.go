package kafkatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

var errNoJava = errors.New("java is not in PATH and JAVA_HOME is not set (Debian: apt-get install default-jdk-headless)")

var errNoCompiler = errors.New("a JDK is needed, this java has no compiler (Debian: apt-get install default-jdk-headless)")

func javaPath() (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" {
		path := filepath.Join(home, "bin", "java")
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("find java by JAVA_HOME: %w", err)
		}
		return path, nil
	}
	path, err := exec.LookPath("java")
	if err != nil {
		return "", errNoJava
	}
	return path, nil
}

// haveCompiler tells whether java can run a source file.
func haveCompiler() error {
	java, err := javaPath()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := exec.CommandContext(ctx, java, "--describe-module", "jdk.compiler").Run(); err != nil {
		return errNoCompiler
	}
	return nil
}

// Java describes a JVM with a main class out of a directory of jars.
type Java struct {
	Libs    string   // directory of jars, from Libs
	Main    string   // main class, or the .java file of one, which needs a JDK
	Args    []string // its arguments
	Heap    string   // -Xmx, default 256m
	FullJIT bool     // also the optimising compiler: slower to start, faster in the long run
	Options []string // more options of the JVM
	Level   string   // log level, default WARN
	Dir     string   // working directory, default the current one
	Env     []string // besides the environment of this process
	// Command makes the command, default exec.CommandContext.
	Command func(ctx context.Context, name string, args ...string) *exec.Cmd
}

func (j Java) command(ctx context.Context) (*exec.Cmd, error) {
	java, err := javaPath()
	if err != nil {
		return nil, err
	}
	heap, level := j.Heap, j.Level
	if heap == "" {
		heap = "256m"
	}
	if level == "" {
		level = "WARN"
	}
	args := []string{
		"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:-UsePerfData",
		"-Djava.awt.headless=true", "-Djava.net.preferIPv4Stack=true",
		"-Dkafkatest.level=" + level,
		"-Dlog4j.configuration=file:" + filepath.Join(j.Libs, "log4j.properties"),
		"-Dlog4j2.configurationFile=" + filepath.Join(j.Libs, "log4j2.properties"),
	}
	if !j.FullJIT {
		args = append(args, "-XX:TieredStopAtLevel=1")
	}
	args = append(args, j.Options...)
	args = append(args, "-cp", filepath.Join(j.Libs, "*"), j.Main)
	command := j.Command
	if command == nil {
		command = exec.CommandContext
	}
	cmd := command(ctx, java, append(args, j.Args...)...)
	cmd.Dir = j.Dir
	if len(j.Env) > 0 {
		cmd.Env = append(cmd.Environ(), j.Env...)
	}
	return cmd, nil
}

// Run runs the main class to its end and returns what it printed on stdout.
// stdin may be nil.
func (j Java) Run(ctx context.Context, stdin []byte) ([]byte, error) {
	cmd, err := j.command(ctx)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", j.Main, err)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), fmt.Errorf("run %s: %w\n%s\n%s", j.Main, err,
			lastLines(stdout.Bytes(), 20), lastLines(stderr.Bytes(), 20))
	}
	return stdout.Bytes(), nil
}

// Start starts the main class and leaves it running; what it prints goes to the
// log file.
func (j Java) Start(log string) (*Process, error) {
	// The end of the process is Kill, Stop or the end of this process, never a context.
	cmd, err := j.command(context.Background())
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", j.Main, err)
	}
	return StartProcess(j.Main, log, cmd)
}

// Tool runs one of Kafka's own command line tools to its end, for example
// org.apache.kafka.tools.TopicCommand, and returns its stdout. Bootstrap it
// with [Cluster.InternalBootstrap], which needs no credentials.
func Tool(ctx context.Context, version, main string, args ...string) ([]byte, error) {
	libs, err := Libs(version)
	if err != nil {
		return nil, err
	}
	return Java{Libs: libs, Main: main, Args: args}.Run(ctx, nil)
}
