"""XMP packets: the description is read and set, and every other byte stays as it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape

from latentcap.data.encoding import encoding_of

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC = "http://purl.org/dc/elements/1.1/"
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f]")
ROOT, NODE, DESCRIPTION = f"{RDF} RDF", f"{RDF} Description", f"{DC} description"
LANGUAGE = "http://www.w3.org/XML/1998/namespace lang"
EMPTY = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about="">
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()


@dataclass
class _Element:
    name: str
    start: int
    inside: int = 0  # where its content begins
    content_end: int = 0
    end: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[_Element] = field(default_factory=list)
    text: str = ""

    def all(self, name: str) -> list[_Element]:
        return [child for child in self.children if child.name == name]


def description_of(packet: bytes) -> str:
    """``dc:description`` in the default language, else in the first; "" where there is none.

    Raises ValueError for what is no XMP.
    """
    data = _utf8(packet)
    found, _ = _parse(data)
    if found is None:
        return ""
    values = _values(found)
    chosen = next((value for value in values if value.attributes.get(LANGUAGE, "").lower() == "x-default"), None)
    return (chosen or (values[0] if values else found)).text.strip()


def with_description(packet: bytes | None, text: str) -> bytes:
    """A packet, new where there is none, whose description in the default language is ``text``.

    Other languages, and whatever else there is, stay as they are. Raises ValueError for what is no XMP.
    """
    data = _utf8(packet or EMPTY)
    found, node = _parse(data)
    item = f'<rdf:li xmlns:rdf="{RDF}" xml:lang="x-default">{_escaped(text)}</rdf:li>'.encode()
    whole = (
        f'<dc:description xmlns:dc="{DC}" xmlns:rdf="{RDF}"><rdf:Alt><rdf:li xml:lang="x-default">{_escaped(text)}'
        "</rdf:li></rdf:Alt></dc:description>"
    ).encode()
    if found is not None:
        values = _values(found)
        default = [value for value in values if value.attributes.get(LANGUAGE, "").lower() == "x-default"]
        if default and default[0].inside < default[0].end:
            return _spliced(data, default[0].inside, default[0].content_end, _escaped(text).encode())
        if default:
            return _spliced(data, default[0].start, default[0].end, item)
        if values:
            return _spliced(data, values[0].start, values[0].start, item)
        return _spliced(data, found.start, found.end, whole)
    if node.end == node.inside:  # <rdf:Description .../>
        slash = data.rindex(b"/", node.start, node.end)
        name = data[node.start + 1 : node.end].split(None, 1)[0].rstrip(b"/>")
        return _spliced(data, slash, node.end, b">" + whole + b"</" + name + b">")
    return _spliced(data, node.content_end, node.content_end, whole + b"\n")


def _values(description: _Element) -> list[_Element]:
    return [value for bag in description.children for value in bag.children]


def _parse(data: bytes) -> tuple[_Element | None, _Element]:
    """The description, where there is one, and the node that it is in or belongs into."""
    parser = expat.ParserCreate(namespace_separator=" ")
    top = _Element("", 0)
    path = [top]
    waiting: list[_Element] = []  # the start tag that has just been met, until the next event says where it ends

    def begin(name: str, attributes: dict[str, str]) -> None:
        settle()
        element = _Element(name, parser.CurrentByteIndex, attributes=attributes)
        path[-1].children.append(element)
        path.append(element)
        waiting.append(element)

    def settle() -> None:
        if waiting:
            element = waiting.pop()
            element.inside = _tag_end(data, element.start)

    def end(name: str) -> None:
        settle()
        element = path.pop()
        at = parser.CurrentByteIndex
        alone = data.startswith(b"/>", element.inside - 2)
        element.content_end = element.inside if alone else at
        element.end = element.inside if alone else data.index(b">", at) + 1

    def characters(text: str) -> None:
        path[-1].text += text

    def doctype(*_: object) -> None:
        raise ValueError("it has a DOCTYPE")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed ({error})") from None
    root = _find(top, ROOT)
    nodes = root.all(NODE) if root else []
    if not nodes:
        raise ValueError("without an rdf:Description")
    for node in nodes:
        if any(name == DESCRIPTION for name in node.attributes):
            raise ValueError("its dc:description is an attribute, where XMP has an element")
        if found := node.all(DESCRIPTION):
            return found[0], node
    return None, nodes[0]


def _find(element: _Element, name: str) -> _Element | None:
    waiting = [element]  # a stranger's file may be nested deeper than functions may call themselves
    while waiting:
        element = waiting.pop()
        if element.name == name:
            return element
        waiting += reversed(element.children)
    return None


def _tag_end(data: bytes, start: int) -> int:
    """Where a start tag ends; ``>`` inside quotation marks does not count."""
    quote = 0
    for at in range(start, len(data)):
        letter = data[at]
        if quote:
            quote = 0 if letter == quote else quote
        elif letter in b"\"'":
            quote = letter
        elif letter == ord(">"):
            return at + 1
    raise ValueError("a tag does not end")


def _spliced(data: bytes, start: int, end: int, new: bytes) -> bytes:
    return data[:start] + new + data[end:]


def _utf8(packet: bytes) -> bytes:
    encoding = encoding_of(packet)
    if encoding in ("utf-8", "utf-8-sig"):
        return packet.rstrip(b"\0")
    return packet.decode(encoding).replace('encoding="UTF-16"', 'encoding="UTF-8"').encode()


def _escaped(text: str) -> str:
    """As XML holds it; control characters and bytes that are no text have no place there."""
    return escape(_NOT_XML.sub("", text.encode("utf-8", "replace").decode()))
