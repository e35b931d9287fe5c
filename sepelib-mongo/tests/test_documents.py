"""What documents remember of a connection is forgotten with it, also by those of the same name."""

import mongoengine
import pytest
from mongoengine import StringField

from sepelib.mongo import MockDatabase, connect


def same_name() -> type[mongoengine.Document]:
    class Twin(mongoengine.Document):
        code = StringField(unique=True)

    return Twin


@pytest.mark.parametrize("made_by", ["mock_database", "connect"])
def test_two_classes_of_one_name_both_follow_to_the_next_database(
    mongo_server: MockDatabase, made_by: str
) -> None:
    first, second = same_name(), same_name()  # mongoengine's registry has the second alone
    for _ in range(2):
        with mongo_server.sibling(alias="twins") as database:
            client = None
            if made_by == "connect":
                client = connect(database.uri, alias="default")
            else:
                database.close()
                database = mongo_server.sibling(alias="default")
            try:
                for twin in first, second:
                    twin(code=twin.__name__ + str(twin is first)).save()
                assert first.objects.count() == second.objects.count() == 2
            finally:
                if client is not None:
                    client.close()
                database.close()


def test_after_drop_both_make_their_indexes_again(mongo_db: MockDatabase) -> None:
    first, second = same_name(), same_name()
    for twin in first, second:
        twin(code="a").save()
        mongo_db.drop()
    first(code="b").save()
    with pytest.raises(mongoengine.NotUniqueError):
        first(code="b").save()
    with pytest.raises(mongoengine.NotUniqueError):
        second(code="b").save()
