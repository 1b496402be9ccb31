package authority

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// VersionError is a record written by a newer replicator. Nothing of it is guessed.
type VersionError struct {
	Version int // found
	Known   int // newest that is known
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("version %d, newest known is %d: written by a newer replicator; run that version here", e.Version, e.Known)
}

// CorruptError is a record of the topic that cannot be understood. It allows
// nothing until it is overwritten.
type CorruptError struct {
	Cluster, Topic string
	Offset         int64  // of the record
	Key            string // of the record
	Err            error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("read topic %s of cluster %s, offset %d, key %q: %v", e.Topic, e.Cluster, e.Offset, e.Key, e.Err)
}

// Unwrap returns what is wrong with it.
func (e *CorruptError) Unwrap() error { return e.Err }

// EpochError is a change that came too late, or too early: the epoch is not the
// next one.
type EpochError struct {
	Pair      Pair
	Cluster   string
	Want      int64 // the epoch that was to be written
	Current   int64 // of the copy, 0: it has no record
	Region    string
	WrittenBy string // who wrote the current record, "" if unknown
}

func (e *EpochError) Error() string {
	by := ""
	if e.WrittenBy != "" {
		by = ", written by " + e.WrittenBy
	}
	return fmt.Sprintf("set authority of %s on cluster %s: epoch %d cannot follow epoch %d (region %s%s); look at replicator authority show, then begin again",
		e.Pair, e.Cluster, e.Want, e.Current, orNone(e.Region), by)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// FencedError is a changer whose right was taken by a later one.
type FencedError struct {
	Pair    Pair
	Cluster string
	Role    string // of both, see Config
	Err     error
}

func (e *FencedError) Error() string {
	if e.Role != "" {
		return fmt.Sprintf("write as %s of %s on cluster %s: another %s took over, nothing was written: %v", e.Role, e.Pair, e.Cluster, e.Role, e.Err)
	}
	return fmt.Sprintf("change authority of %s on cluster %s: another operator's command took over, nothing was written: %v", e.Pair, e.Cluster, e.Err)
}

// Unwrap returns the broker's answer.
func (e *FencedError) Unwrap() error { return e.Err }

// UnknownError is a change of which it could not be found out whether it was
// written. Reading the copy again tells it as soon as the cluster answers; what was
// not committed by then is aborted after the transaction's time-out.
type UnknownError struct {
	Pair    Pair
	Cluster string
	Err     error
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("change authority of %s on cluster %s: it is not known whether it was written: %v; look at replicator authority show before the next step", e.Pair, e.Cluster, e.Err)
}

// Unwrap returns why it is not known.
func (e *UnknownError) Unwrap() error { return e.Err }

// SplitError is two copies that give one epoch to different regions.
type SplitError struct {
	Pair    Pair
	Cluster string
	Have    Record // of this cluster's copy
	Got     Record // of the other one
}

func (e *SplitError) Error() string {
	return fmt.Sprintf("copy authority of %s to cluster %s: it has epoch %d for %s (%s by %s), the other copy for %s (%s by %s); decide for one and write a higher epoch to both",
		e.Pair, e.Cluster, e.Have.Epoch, e.Have.Region, e.Have.Verb, orNone(e.Have.By), e.Got.Region, e.Got.Verb, orNone(e.Got.By))
}

// LostError is a copy that says less than it did before.
type LostError struct {
	Pair         Pair
	Cluster      string
	Topic        string
	Before, Then int64 // epochs
}

func (e *LostError) Error() string {
	return fmt.Sprintf("read topic %s of cluster %s: epoch %d of %s was there and now the highest is %d: records were lost or deleted; bring them back from the other cluster's copy",
		e.Topic, e.Cluster, e.Before, e.Pair, e.Then)
}

// fenced tells whether a broker refused because somebody else took the right.
func fenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.InvalidProducerIDMapping)
}

// right adds to a refused authorization what has to be granted; other errors stay
// as they are.
func right(err error, operation, resource, cluster string) error {
	for _, refused := range []error{kerr.TopicAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
		if errors.Is(err, refused) && !strings.Contains(err.Error(), "; grant ") {
			return fmt.Errorf("%w; grant %s on %s of cluster %s", err, operation, resource, cluster)
		}
	}
	return err
}
