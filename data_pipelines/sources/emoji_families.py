"""Which emoji are variants of one drawing: the unit by which the emoji data is split.

Two emoji belong to one family if the picture or the caption of one gives the other away: man,
woman and person running, clock faces, coloured hearts, a cat and a face with the same expression,
the same hand from the other side. A family is never on both sides of a split.
"""

import hashlib
import re

# Families that no general rule finds: the first pattern that matches the whole name decides.
_KIN = tuple(
    (family, re.compile(pattern))
    for family, pattern in {
        # People.
        "couple or family": r"family\b.*|kiss( (wo)?man (wo)?man)?|couple with heart.*"
        r"|.*holding hands|people hugging",
        "person": r"(old(er)? )?(man|woman|person|boy|girl|child|baby)( beard| bald| \w+ hair)?"
        r"|(man|woman|person) (frowning|pouting)",
        "royalty": r"prince(ss)?|person with crown",
        "claus": r".*\bclaus",
        "merperson": r"mer(man|maid|person)",
        "feeding baby": r"breast-feeding|.*feeding baby",
        "superhero": r".*\bsuper(hero|villain)",
        "wheelchair": r".*\bwheelchair\b.*",
        "white cane": r".*\bwhite cane\b.*",
        "biking": r".*\bbiking",
        "bath": r"bathtub|person taking bath",
        "bed": r"bed|person in bed",
        "silhouette": r"busts? in silhouette",
        # Expressions of faces, cats and monkeys.
        "horns": r".*face with horns",
        "smile": r"(slightly )?(grinning|smiling|beaming)\b.*|(face|cat) with tears of joy"
        r"|rolling on the floor laughing|upside-down face|head shaking .*"
        r"|smirking face|cat with wry smile",
        "kissing": r"kissing .*|face blowing a kiss",
        "tongue out": r".*face with tongue|zany face|face savoring food",
        "frown": r"(slightly )?frowning face.*|face with diagonal mouth|face without mouth"
        r"|(confused|confounded|persevering|worried|anguished|fearful|weary|tired) face"
        r"|(neutral|expressionless|dotted line) face|weary cat|face screaming in fear"
        r"|face with (crossed-out|spiral) eyes",
        "open mouth": r"face with open mouth|(hushed|astonished) face",
        "sweat": r"(anxious|downcast) face with sweat|sad but relieved face",
        "crying": r"(loudly )?crying (face|cat)|face holding back tears",
        "angry": r"(angry|enraged) face|pouting cat|face with (symbols on mouth|steam from nose)",
        "downcast": r"(pensive|disappointed|relieved) face",
        "hand over mouth": r"face with (.* )?hand over mouth",
        "nauseated": r"nauseated face|face vomiting",
        "sleeping": r"(sleepy|sleeping) face",
        "monkey": r"monkey( face)?|.*-no-evil monkey",
        # Hands and other parts of the body.
        "index pointing": r"(backhand )?index pointing .*",
        "raising hand": r".*\braising hands?",
        "raised hand": r"raised (back of )?hand|hand with fingers splayed",
        "fist": r".*\bfist",
        "arm": r"flexed biceps|mechanical arm",
        "leg": r"(mechanical )?leg",
        "eye": r"eyes?",
        "lips": r"mouth|biting lip",
        # Animals and plants.
        "dog": r"((guide|service) )?dog( face)?|poodle",
        "camel": r"(two-hump )?camel",
        "whale": r"(spouting )?whale",
        "chick": r".*\bchick",
        "fish": r"(tropical )?fish",
        "clover": r"shamrock|four leaf clover",
        # Food and sport.
        "beer": r"(clinking )?beer mugs?",
        "baseball": r"baseball|softball",
        "football": r"american football|rugby football",
        "medal": r".*\bmedal",
        "suit": r"(spade|heart|diamond|club) suit",
        "ticket": r"(admission )?tickets?",
        # Travel, places, sky, time.
        "globe": r"globe .*",
        "mountain": r"(snow-capped )?mountain|mount fuji",
        "house": r"(derelict )?house( with garden)?|houses",
        "castle": r"(japanese )?castle",
        "hotel": r"(love )?hotel",
        "post office": r"(japanese )?post office",
        "skyline": r"cityscape.*|sunset|sunrise.*|night with stars",
        "bridge": r"bridge at night|foggy",
        "train": r"locomotive|railway car|(high-speed |bullet )?train|metro|light rail|station"
        r"|tram( car)?|monorail|mountain railway",
        "bus": r"(oncoming |trolley|mini)?bus",
        "car": r"(oncoming )?(automobile|taxi|police car)|sport utility vehicle|pickup truck",
        "truck": r"delivery truck|articulated lorry",
        "boat": r"speedboat|motor boat",
        "ship": r"(passenger )?ship|ferry",
        "airplane": r"(small )?airplane( .*)?",
        "cable car": r"suspension railway|mountain cableway|aerial tramway",
        "star": r"(glowing )?star",
        "cloud": r"cloud( with .*)?|sun behind .*",
        "umbrella": r"(closed )?umbrella( .*)?",
        "snowman": r"snowman( .*)?",
        "droplet": r"droplet|sweat droplets|drop of blood",
        "clock face": r".*\bo'clock|.*-thirty",
        # Objects.
        "heart": r"(?!anatomical|heart hands).*\bhearts?\b.*",
        "envelope": r"(incoming )?envelope( with arrow)?|e-mail|love letter",
        "tray": r"(inbox|outbox) tray",
        "speech bubble": r".*\b(speech|thought|anger) (bubble|balloon)",
        "book": r"((open|closed|green|blue|orange) )?books?",
        "notebook": r"notebook.*|ledger",
        "newspaper": r".*\bnewspaper",
        "calendar": r".*\bcalendar",
        "chart": r".*\bchart\b.*",
        "banknote": r".*\bbanknote",
        "pen": r"(fountain )?pen",
        "ruler": r".*\bruler",
        "pushpin": r"(round )?pushpin",
        "paperclip": r"(linked )?paperclips?",
        "lock": r"(un)?locked.*",
        "key": r"(old )?key",
        "speaker": r"(muted )?speaker.*",
        "megaphone": r"megaphone|loudspeaker",
        "mobile phone": r"mobile phone.*|vibration mode",
        "battery": r"(low )?battery",
        "disk": r"(computer|optical) disk|dvd",
        "glasses": r"(sun)?glasses",
        "hourglass": r"hourglass .*",
        "musical note": r"musical notes?",
        # Signs and symbols.
        "keycap": r"keycap .*",
        "letter button": r"(ab?|b|o|cl|cool|free|id|new|ng|ok|p|sos|up!|vs) button.*|circled m"
        r"|information",
        "japanese button": r"japanese .* button",
        "input": r"input .*",
        "word arrow": r"(back|end|on!|soon|top) arrow",
        "arrow": r"((up|down|left|right)[a-z-]* )+arrow( curving \w+)?"
        r"|(counter)?clockwise .*arrows.*",
        "media button": r"(play|reverse|fast-forward|fast reverse|next track|last track|upwards"
        r"|downwards|fast up|fast down|play or pause|pause|stop|record|eject|shuffle tracks"
        r"|repeat|repeat single) button",
        "brightness": r"(bright|dim) button",
        "circle or moon": r"(hollow )?\w+ circle|.*\bmoon( face)?",
        "square": r".*\bsquare( button)?",
        "diamond": r"(large|small) \w+ diamond|diamond with a dot",
        "check mark": r"check .*",
        "cross mark": r"cross mark.*|multiply",
        "exclamation or question mark": r".*\b(exclamation|question) mark",
        "prohibition": r"no .*|prohibited|(non-)?potable water",
        "restroom": r"(wo)?men's room|restroom",
        "baggage sign": r"passport control|customs|baggage claim|left luggage",
        "zodiac": r"aries|taurus|gemini|cancer|leo|virgo|libra|scorpio|sagittarius|capricorn"
        r"|aquarius|pisces|ophiuchus",
        "cross": r"(latin|orthodox) cross",
        "six-pointed star": r"star of david|.*six-pointed star",
        "eight points": r"eight-.*|sparkle",
        "gender sign": r"(fe)?male sign|transgender symbol",
        "legal mark": r"copyright|registered|trade mark",
        "loop": r"(double )?curly loop",
    }.items()
)

_PEOPLE = re.compile(r"\b(man|woman|men|women|person|people)\b(?!')")
_ATTRIBUTES = re.compile(
    r"\b(light (?=blue)|(red|orange|yellow|green|blue|purple|brown|black|white|gr[ea]y|pink)(?!-)"
    r"|large|medium|small|medium-small|open|closed|empty"
    r"|(up|down|left|right)(wards)?|(left|right|front)-facing|oncoming|facing|pointed|pointing"
    r"|tilted|horizontal|vertical)\b"
)
_ADDITION = re.compile(r" (with|without|and|behind) .*")

_FLAG = re.compile(r"[\U0001F1E6-\U0001F1FF]{2}|[\U0001F3F4\U0001F3F3].*")
_FLAGS = re.compile(r"(triangular|chequered|crossed) flags?")
_ZWJ = "\u200d"
_DRAW = 75  # the first that holds out 187 to 205 concepts, no family of more than 12
_GENDERED = re.compile(r"[\U0001F468\U0001F469\U0001F9D1].*|.*\u200d[♀♂➡↔↕].*")  # by name


def families(names: dict[str, str]) -> dict[str, str]:
    """The family of each emoji.

    Args:
      names: the English name of each emoji, keyed by its characters.

    Returns:
      The family's name, keyed by the characters.
    """
    return {characters: _family(characters, names) for characters in names}


def held_out(family: str) -> bool:
    """True for the eighth of the families, drawn by a hash of the name, that training never sees.

    Flags are always seen: what is on one says nothing about another.
    """
    digest = hashlib.sha256(f"{family} {_DRAW}".encode()).digest()
    return family != "flag" and digest[0] % 8 == 0


def _family(characters: str, names: dict[str, str]) -> str:
    name = names[characters].lower().replace("’", "'")
    if _FLAG.fullmatch(characters) or _FLAGS.fullmatch(name):
        return "flag"
    for family, pattern in _KIN:
        if pattern.fullmatch(name):
            return family
    head = characters.split(_ZWJ)[0]
    if _ZWJ in characters and not _GENDERED.fullmatch(characters):
        whole = next((c for c in (head, head + "\ufe0f") if c in names), None)
        if whole is not None:
            return _family(whole, names)
    if _PEOPLE.search(name):
        bare = _PEOPLE.sub("", name.removesuffix(" facing right"))
    elif name.startswith("face "):
        bare = name
    else:
        bare = _ADDITION.sub("", _ATTRIBUTES.sub("", name)).removesuffix(" face")
    return " ".join(bare.split()) or name
