// Package writers keeps applications from writing to topics, by the cluster's
// own ACLs, and tells whether somebody still writes.
//
// What it promises:
//
//   - A [Plan] names every rule that will be made: DENY WRITE on one topic for one
//     principal, from every host. A principal that is to go on (the replicator's
//     own, for the link of the other direction) is in none of them.
//   - [Apply] returns when every broker shows every rule of the plan. From then on
//     a broker authorizes no write of these principals: it answers from the same
//     rules that it checks.
//   - [Lift] takes away what Apply made and nothing else. Rules that stood before
//     are marked in the plan. Both may be repeated, and after a failure say what
//     stands.
//   - [Grown] reads every partition's end twice and names each one that grew, and
//     each transaction that is open.
//
// What it cannot do, and says in the plan: super users are not listed by brokers and
// pass every rule; who is given WRITE after the plan was made is not in it ([Check]
// finds them); where everybody may write, everybody is denied, the replicator too,
// unless the principals are named. The growth check finds whoever writes all the same.
//
// A plan is written down before it is applied: one that is made afterwards takes
// the rules for somebody else's and does not lift them.
package writers
