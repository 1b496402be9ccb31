package lanemodel

import (
	"fmt"
	"reflect"
	"strings"
)

// Rules are the rules of the lane protocol, each of which can be taken out.
// Code and documents refer to a rule by the name of its field.
type Rules struct {
	// Opening.

	// Barrier: the opener has the broker write a control record with its epoch, and reads the target up to it.
	Barrier bool
	// JournalAfterControl: the journal is read only once the opener has seen its own control record.
	JournalAfterControl bool
	// TwoBarriers: if the last epoch record names another producer id, the opener waits out the lease behind its
	// first control record and takes the epoch once more; the second control record counts.
	TwoBarriers bool
	// EpochAbove: an epoch that journal or target have already seen for the producer id is not used.
	EpochAbove bool
	// AuthorityAfterEpoch: a daemon reads the authority record after it has taken the epoch, not before.
	AuthorityAfterEpoch bool
	// AuthorityBeforeFence: the failover command writes the authority record before it takes the epochs.
	AuthorityBeforeFence bool
	// Guard: once the failover is final, the lane's epoch is taken again before the partition forgets it.
	Guard bool
	// EpochRecordFirst: the epoch record is acknowledged before the first append.
	EpochRecordFirst bool
	// EndCheck: an opening counts only if the leader's end is still the offset behind our control record.
	EndCheck bool
	// EndCheckLast: that end is asked after the epoch record was acknowledged.
	EndCheckLast bool
	// ReadOnConnection: the connection that will carry the appends is open to the leader before the control record
	// is read, and has stayed open when the end is asked. Which connection carries the question does not matter.
	ReadOnConnection bool
	// DailyOpening: nothing is sent under an epoch taken more than a day ago.
	DailyOpening bool

	// Appending.

	// SpansAhead: a span is acknowledged by the journal before the first of its records is sent.
	SpansAhead bool
	// FirstAlone: the first batch of an epoch is sent alone.
	FirstAlone bool
	// WindowOfOne: one batch in flight unless the last acknowledged and all unanswered ones are fresh.
	WindowOfOne bool
	// BaseOffset: an append that landed elsewhere than predicted puts the lane in doubt.
	BaseOffset bool
	// SameConnection: a lane sends only on the connection on which it was opened.
	SameConnection bool
	// Lease: a lane sends only within ten seconds of its last answered request, else it validates first.
	Lease bool
	// LeaseFromSending: the ten seconds run from the sending of that request, not from the answer's arrival.
	LeaseFromSending bool
	// ValidateEnd: validating compares the leader's end with the predicted one.
	ValidateEnd bool
	// LeaseWait: before the first old record of an epoch the lease is waited out, counted from the control record.
	LeaseWait bool
	// OwnRequestsToo: LeaseWait holds as well for a daemon that opens again after its own doubt.
	OwnRequestsToo bool
	// QuietClose: a clean close spares the next holder the wait only if the closing holder was quiet itself.
	QuietClose bool
}

// Options are choices in which the protocol is safe either way, or is asked to be.
type Options struct {
	// SkipFirst: no LeaseWait if the journal, read behind our control record, has no epoch record at all.
	SkipFirst bool
	// SkipClosed: no LeaseWait if the holder of the last epoch record has closed the lane (see QuietClose).
	SkipClosed bool
	// SkipNewID: SkipClosed also spares TwoBarriers when the producer id has changed.
	SkipNewID bool
	// ValidateEpoch: validating also asks whether the partition still knows our epoch (DescribeProducers).
	ValidateEpoch bool
	// ValidateFresh: validating succeeds only if the last acknowledged batch of the epoch is fresh.
	ValidateFresh bool
}

// AllRules returns the protocol as designed.
func AllRules() Rules {
	var r Rules
	v := reflect.ValueOf(&r).Elem()
	for _, field := range v.Fields() {
		field.SetBool(true)
	}
	return r
}

// Without returns the rules with the named one taken out.
func (r Rules) Without(name string) (Rules, error) {
	err := setField(&r, name, false)
	return r, err
}

// With returns the options with the named one switched on.
func (o Options) With(name string) (Options, error) {
	err := setField(&o, name, true)
	return o, err
}

// RuleNames lists the rules in the order of the protocol.
func RuleNames() []string { return fieldNames(Rules{}) }

// OptionNames lists the options.
func OptionNames() []string { return fieldNames(Options{}) }

func fieldNames(v any) []string {
	t := reflect.TypeOf(v)
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Name
	}
	return names
}

func setField(p any, name string, value bool) error {
	v := reflect.ValueOf(p).Elem()
	f := v.FieldByName(name)
	if !f.IsValid() {
		return fmt.Errorf("set %q: no such name, known are %s", name, strings.Join(fieldNames(v.Interface()), ", "))
	}
	f.SetBool(value)
	return nil
}
