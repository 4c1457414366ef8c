"""Several pictures a product: found by each of them, once, and changed at no more than what is new."""

import io
import random
import re
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.api.test_api import assert_problem
from tests.conftest import wait_until_indexed

FULL_SCORE = 0.999


def blocks(seed: int) -> bytes:
    """Like no other."""
    chance, image = random.Random(seed), Image.new("RGB", (32, 32))
    for corner in range(16):
        colour = (chance.randrange(256), chance.randrange(256), chance.randrange(256))
        image.paste(colour, (corner % 4 * 8, corner // 4 * 8, corner % 4 * 8 + 8, corner // 4 * 8 + 8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def files(first: bytes | None, *further: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    main = [] if first is None else [("image", ("1.png", first))]
    return [*main, *(("images", ("2.png", each)) for each in further)]


def create(api: httpx.Client, title: str, pictures: Sequence[bytes], **fields: str) -> dict[str, Any]:
    answer = api.post("/product", data={"title": title, **fields}, files=files(*pictures))
    assert answer.status_code == httpx.codes.CREATED, answer.text
    product: dict[str, Any] = answer.json()
    return product


def ids(product: dict[str, Any]) -> list[str]:
    return [image["image_id"] for image in product["images"]]


def search(api: httpx.Client, image: bytes | None = None, **request: Any) -> list[dict[str, Any]]:
    if image is not None:
        answer = api.post("/search", data={"top_k": "100", **request}, files={"image": ("q.png", image)})
    else:
        answer = api.post("/search", json={"top_k": 100, **request})
    hits: list[dict[str, Any]] = answer.raise_for_status().json()["hits"]
    return hits


def hit_of(hits: list[dict[str, Any]], product: dict[str, Any]) -> dict[str, Any]:
    (hit,) = [hit for hit in hits if hit["product"]["product_id"] == product["product_id"]]
    return hit


def vectors(api: httpx.Client) -> dict[str, float]:
    """How many pictures and titles were encoded, or taken over."""
    found = re.findall(r'tuwen_index_vectors_total\{how="(\w+)",of="(\w+)",[^}]*\} (\S+)', api.get("/metrics").text)
    return {f"{of} {how}": float(count) for how, of, count in found}


class Cost:
    """Of what was done since it was last asked."""

    def __init__(self, api: httpx.Client) -> None:
        self._api, self._before = api, vectors(api)

    def since(self) -> dict[str, float]:
        wait_until_indexed(self._api)
        now, before = vectors(self._api), self._before
        self._before = now
        return {name: count - before.get(name, 0) for name, count in now.items() if count != before.get(name, 0)}


def test_a_product_is_found_by_each_of_its_pictures_once_and_the_picture_is_named(api: httpx.Client) -> None:
    pictures = [blocks(number) for number in (1, 2, 3)]
    others = [create(api, f"旁边的柜子 {number}", [blocks(100 + number)]) for number in range(5)]
    product = create(api, "有三张照片的沙发", pictures, sku="THREE")
    assert [image["position"] for image in product["images"]] == [1, 2, 3]
    assert product["images"][0]["image_url"] == product["image_url"]
    wait_until_indexed(api)
    for position, picture in enumerate(pictures, start=1):
        hits = search(api, picture, mode="image_to_image")
        assert hits[0]["product"]["product_id"] == product["product_id"]
        assert hits[0]["score"] > FULL_SCORE
        assert hits[0]["image"] == product["images"][position - 1]
        assert len({hit["product"]["product_id"] for hit in hits}) == len(hits) == len(others) + 1
        assert api.get(hits[0]["image"]["image_url"]).content == picture
        assert api.get(hits[0]["image"]["thumbnail_url"]).is_success
    by_text = search(api, mode="text_to_image", text="沙发")
    assert hit_of(by_text, product)["image"] in product["images"]
    assert hit_of(by_text, others[0])["image"] == others[0]["images"][0]
    for hits in (search(api, mode="text_to_text", text="沙发"), search(api, pictures[1], mode="image_to_text")):
        assert hit_of(hits, product)["image"] is None
        assert len(hits) == len(others) + 1
    title = search(api, mode="text_to_text", text="有三张照片的沙发")[0]
    assert (title["product"]["product_id"], round(title["score"], 3)) == (product["product_id"], 1.0)
    similar = search(api, mode="image_to_image", product_id=product["product_id"])
    assert sorted(hit["product"]["product_id"] for hit in similar) == [each["product_id"] for each in others]
    for path in (f"/product/{product['product_id']}", "/product/by-sku/THREE"):
        assert api.get(path).json()["images"] == product["images"]
    listed = api.get("/product/list").json()["items"]
    assert [len(each["images"]) for each in listed] == [3, 1, 1, 1, 1, 1]
    assert listed[0]["milvus_id"] == api.get(f"/product/{product['product_id']}").json()["milvus_id"] is not None
    for each in (product, *others):
        api.delete(f"/product/{each['product_id']}")


def test_of_pictures_that_are_changed_only_new_ones_are_encoded(api: httpx.Client) -> None:
    one, two, three, four = (blocks(number) for number in (11, 12, 13, 14))
    cost = Cost(api)
    product = create(api, "照片会变的台灯", [one, two, three])
    path = f"/product/{product['product_id']}"
    first, second, third = ids(product)
    assert cost.since() == {"picture encoded": 3, "title encoded": 1}

    turned = api.put(f"{path}/images", json={"image_ids": [third, first, second]}).raise_for_status().json()
    assert (ids(turned), turned["version"], turned["index_status"]) == ([third, first, second], 2, "pending")
    assert turned["image_url"] == product["images"][2]["image_url"]
    assert cost.since() == {"picture kept": 3, "title kept": 1}
    same = api.put(f"{path}/images", json={"image_ids": [third, first, second]}).raise_for_status().json()
    assert (same["version"], same["index_status"]) == (2, "indexed")
    assert hit_of(search(api, one, mode="image_to_image"), product)["image"]["position"] == 2

    added = api.post(f"{path}/image", data={"position": "2"}, files={"image": ("4.png", four)})
    assert added.status_code == httpx.codes.CREATED
    fourth = ids(added.json())[1]
    assert ids(added.json()) == [third, fourth, first, second]
    assert cost.since() == {"picture encoded": 1, "picture kept": 3, "title kept": 1}

    removed = api.delete(f"{path}/image/{third}").raise_for_status().json()  # the main one
    assert ids(removed) == [fourth, first, second]
    assert removed["images"][0]["image_url"] == removed["image_url"]
    assert cost.since() == {"picture kept": 3, "title kept": 1}
    assert hit_of(search(api, three, mode="image_to_image"), product)["score"] < FULL_SCORE

    assert api.patch(path, data={"title": "照片会变的落地灯"}).is_success
    assert cost.since() == {"picture kept": 3, "title encoded": 1}
    assert api.patch(path, data={"price": "9"}).is_success
    assert cost.since() == {}
    main = api.patch(path, files={"image": ("2.png", two)}).raise_for_status().json()  # one of the others, too
    assert ids(main) == [second, first]
    assert cost.since() == {"picture kept": 2, "title kept": 1}
    for picture, image_id in ((one, first), (two, second)):
        hit = search(api, picture, mode="image_to_image")[0]
        assert (hit["product"]["product_id"], hit["image"]["image_id"]) == (product["product_id"], image_id)
    api.delete(path)


def test_put_by_sku_replaces_the_pictures_that_it_names(api: httpx.Client) -> None:
    one, two, three = (blocks(number) for number in (21, 22, 23))
    path, form = "/product/by-sku/PUT-PICTURES", {"title": "整件替换的床"}
    made = api.put(path, data=form, files=files(one, two))
    assert made.status_code == httpx.codes.CREATED
    first, second = ids(made.json())
    assert ids(api.put(path, data=form).json()) == [first, second]
    assert api.put(path, data=form, files=files(one, two)).json()["version"] == 1
    replaced = api.put(path, data=form, files=files(None, three)).raise_for_status().json()
    assert (ids(replaced)[0], len(ids(replaced)), second in ids(replaced)) == (first, 2, False)
    assert_problem(api.put(path, data=form, files=files(None, one)), 422, "images", "same picture")
    api.delete(f"/product/{replaced['product_id']}")


def test_what_can_not_be_is_refused_and_changes_nothing(api: httpx.Client) -> None:
    pictures = [blocks(number) for number in range(31, 41)]
    form = {"title": "照片很多的书柜"}
    assert_problem(api.post("/product", data=form, files=files(*pictures)), 422, "images", "one too many")
    assert_problem(api.post("/product", data=form, files=files(None, *pictures[:2])), 422, "image", "missing")
    assert_problem(
        api.post("/product", data=form, files=files(*pictures[:2], pictures[0])), 422, "images", "same picture"
    )
    assert_problem(api.post("/product", data=form, files=files(pictures[0], b"x")), 422, "images.0", "not a picture")
    two_main = [("image", ("1.png", each)) for each in pictures[:2]]
    assert_problem(api.post("/product", data=form, files=two_main), 422, "image", "comes twice")

    product = create(api, "照片很多的书柜", pictures[:9])
    path = f"/product/{product['product_id']}"
    tenth = {"image": ("10.png", pictures[9])}
    assert_problem(api.post(f"{path}/image", files=tenth), 422, "image", "one too many")
    assert_problem(api.post(f"{path}/image", files={"image": ("1.png", pictures[3])}), 422, "image", "same picture")
    assert_problem(api.post(f"{path}/image", data={"position": "0"}, files=tenth), 422, "position", "")
    assert_problem(api.post(f"{path}/image", data={"title": "x"}, files=tenth), 422, "title", "")
    assert_problem(api.post(f"{path}/image", data={"position": "1"}), 422, "image", "missing")
    assert_problem(api.post("/product/999999/image", files=tenth), 404, None, "no product")
    assert_problem(api.patch(path, files=files(None, pictures[9])), 422, "images", "")
    order = ids(product)
    for wrong in (order[:-1], [*order[:-1], order[0]], [*order[:-1], "0" * 64]):
        assert_problem(api.put(f"{path}/images", json={"image_ids": wrong}), 422, "image_ids", "each picture")
    assert_problem(api.put(f"{path}/images", json={"image_ids": ["x"]}), 422, "image_ids.0", "")
    assert_problem(api.put(f"{path}/images", json={"order": order}), 422, "image_ids", "")
    assert_problem(api.delete(f"{path}/image/{'0' * 64}"), 404, None, "no picture")
    unchanged = api.get(path)
    assert (unchanged.json()["version"], ids(unchanged.json())) == (1, order)

    etag = unchanged.headers["etag"]
    fewer = api.delete(f"{path}/image/{order[0]}", headers={"If-Match": etag})
    assert fewer.headers["etag"] != etag
    stale = {"If-Match": etag}
    assert_problem(api.delete(f"{path}/image/{order[1]}", headers=stale), 412, None, "version")
    assert_problem(api.post(f"{path}/image", files=tenth, headers=stale), 412, None, "version")
    assert_problem(api.put(f"{path}/images", json={"image_ids": order[1:]}, headers=stale), 412, None, "version")
    for image_id in order[1:-1]:
        assert api.delete(f"{path}/image/{image_id}").is_success
    assert_problem(api.delete(f"{path}/image/{order[-1]}"), 422, "image_id", "only picture")
    wait_until_indexed(api)
    assert ids(api.get(path).json()) == order[-1:]
    api.delete(path)


def test_a_key_is_of_all_pictures(api: httpx.Client) -> None:
    one, two, three = (blocks(number) for number in (51, 52, 53))
    form, key = {"title": "只建一次的椅子"}, {"Idempotency-Key": "several-pictures"}
    made = api.post("/product", data=form, files=files(one, two), headers=key).json()
    assert api.post("/product", data=form, files=files(one, two), headers=key).json() == made
    assert_problem(api.post("/product", data=form, files=files(one, three), headers=key), 422, None, "Another request")
    api.delete(f"/product/{made['product_id']}")


@pytest.mark.parametrize("mode", ["image_to_image", "text_to_image"])
def test_ten_pages_have_no_product_twice_and_leave_none_out_while_products_come_in(
    api: httpx.Client, mode: str
) -> None:
    """All are of one category, so that what comes in ranks behind or before them, and is filtered out."""
    made = [
        create(api, f"翻页的椅子 {number}", [blocks(1000 + 3 * number + each) for each in range(3)], category="翻页")
        for number in range(20)
    ]
    wait_until_indexed(api)
    query: dict[str, Any] = {"mode": mode, "top_k": 2, "filters": {"category": ["翻页"]}}
    query |= {"text": "椅子"} if mode == "text_to_image" else {"product_id": made[0]["product_id"]}
    seen, added = [], []
    for page in range(10):
        added.append(create(api, f"新来的桌子 {page}", [blocks(2000 + 2 * page), blocks(2001 + 2 * page)]))
        hits = api.post("/search", json={**query, "offset": page * 2}).raise_for_status().json()["hits"]
        assert [hit["rank"] for hit in hits] == [page * 2 + 1, page * 2 + 2][: len(hits)]
        seen += [hit["product"]["product_id"] for hit in hits]
    expected = {each["product_id"] for each in made[0 if mode == "text_to_image" else 1 :]}
    assert len(seen) == len(set(seen))
    assert set(seen) == expected
    wait_until_indexed(api)
    for product in (*made, *added):
        api.delete(f"/product/{product['product_id']}")
