// What the tests call. directory_apache/ is made of it by Apache's compiler 0.17 and ruff, without
// the *-remote scripts and __init__.py: thrift -out . --gen py directory.thrift
namespace py directory_apache

exception NotFound {
  1: string key
}

exception Busy {
  1: string reason,
  2: i32 retry_in
}

enum Kind {
  PERSON = 1,
  ROBOT = 2
}

struct Person {
  1: required string name,
  2: i32 age,
  3: optional string mail,
  4: list<string> tags,
  5: map<string, i64> counters,
  6: double score = 0.5,
  7: Kind kind = Kind.PERSON
}

service Base {
  string whoami()
}

service Directory extends Base {
  void ping(),
  string echo(1: string text),
  i64 add(1: i64 number),
  Person put(1: Person person, 2: bool replace = 0) throws (1: NotFound missing, 2: Busy busy),
  list<Person> many(1: i32 count),
  map<string, i64> counters(),
  set<i32> numbers(),
  void forget(1: string key) throws (1: NotFound missing),
  oneway void tell(1: string text)
}
