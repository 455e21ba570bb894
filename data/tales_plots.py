"""The words of the tales and their eight plots. `data/tales_grammar.py` explains `{slots}`, `[choices]` and `choose`.

To add a plot: write a function that tells the rest of the story, and add it to PLOTS with its first sentence, which
must begin unlike every other plot's. Keep each choice visible where it is made (a branch is known by its text up to
its first new word or [choice]), a story under 125 words and marks, and no branch rarer than one in fifty of a plot.
"""

from data.tales_grammar import Roles, Telling, Word


def _people(kind: str, texts: str, he: str, him: str, his: str) -> tuple[Word, ...]:
    forms = {"he": he, "him": him, "his": his, "He": he.capitalize(), "His": his.capitalize()}
    return tuple(Word(kind, text, the=text, **forms) for text in texts.split())


def _plain(kind: str, texts: str) -> tuple[Word, ...]:
    return tuple(Word(kind, text) for text in texts.split())


SHE, HE = ("she", "her", "her"), ("he", "him", "his")

CHILDREN = (
    *_people("name", "Anna Clara Ella Ivy Jane Lily Mia Nora Ruby Zoe", *SHE),
    *_people("name", "Ben Finn Hugo Jack Leo Max Oscar Sam Theo Tom", *HE),
)
ELDERS = (*_people("detail", "mother grandma", *SHE), *_people("detail", "father grandpa", *HE))
ANIMALS = tuple(
    Word("animal", text, the=f"the {text}", sound=sound)
    for text, sound in [
        ("cat", "Meow"),
        ("crow", "Caw"),
        ("dog", "Woof"),
        ("duck", "Quack"),
        ("frog", "Croak"),
        ("hen", "Cluck"),
        ("lamb", "Baa"),
        ("mouse", "Squeak"),
        ("pig", "Oink"),
        ("pony", "Neigh"),
    ]
)
TOYS = _plain("object", "basket boat crown doll drum flute kite lantern puppet train")
PLACES = tuple(
    Word("place", text, at=f"{preposition} the {text}")
    for preposition, texts in [("at", "beach farm market"), ("by", "lake river"), ("in", "forest garden park")]
    for text in texts.split()
)
# Two sets of hiding places, and below two of food: what is chosen second then need not differ from what came first,
# which would be a rule to learn by itself.
SPOTS, OTHER_SPOTS = (
    tuple(
        Word("place", f"{preposition} a {text}", the=f"{preposition} the {text}", noun=text)
        for preposition, texts in phrases
        for text in texts.split()
    )
    for phrases in (
        [("behind", "tree wall"), ("under", "bench")],
        [("behind", "gate"), ("under", "bridge"), ("in", "bush")],
    )
)
WEATHERS = (
    Word("detail", "sunny", home="in the warm sun", out="in the dark", fell="tripped over a stone"),
    Word("detail", "rainy", home="in the rain", out="in the rain", fell="slipped in the mud"),
    Word("detail", "windy", home="through the wind", out="in the wind", fell="tripped over a branch"),
    Word("detail", "snowy", home="through the snow", out="in the snow", fell="slipped on the ice"),
)
COLOURS = _plain("detail", "red blue green yellow white black pink golden")
FOODS = _plain("object", "bread cake cheese fruit pie")
MEALS = _plain("object", "honey jam milk soup")
ROLES: Roles = {
    **dict.fromkeys(("hero", "friend", "third"), CHILDREN),
    **dict.fromkeys(("toy", "own_toy"), TOYS),
    **dict.fromkeys(("colour", "own_colour"), COLOURS),
    "spot": SPOTS,
    "other_spot": OTHER_SPOTS,
    "elder": ELDERS,
    "animal": ANIMALS,
    "look": _plain("detail", "little shy brown young sleepy gentle"),
    "place": PLACES,
    "weather": WEATHERS,
    "food": FOODS,
    "meal": MEALS,
    "limb": _plain("detail", "knee foot leg toe"),
    "monster": _plain("detail", "dragon ghost giant"),
    "pet_name": _plain("name", "Biscuit Button Pepper Daisy"),
}


def tell_tale(tell: Telling) -> None:
    """The whole grammar: a day, a child, and one of the plots."""
    tell("[One|Once, on a|On a] {weather} [morning|day|afternoon|evening], {hero}")
    plots = {plot.__name__: plot for plot in PLOTS}
    chosen = tell.choose(**{name: PLOTS[plot] for name, plot in plots.items()})
    plots[chosen](tell)


def lost_toy(tell: Telling) -> None:
    """The weather takes a toy; whoever finds it, or comforts its owner, is the one who is thanked."""
    if tell.is_cast("weather", "sunny"):
        tell("{hero.He} [sat down|picked some flowers|fell asleep] and lost it.")
    elif tell.is_cast("weather", "rainy"):
        tell("{hero.He} [ran from|hid from|danced in] the rain and lost it.")
    elif tell.is_cast("weather", "windy"):
        tell("The wind [pulled|carried|took] it [away|over a tree].")
    else:
        tell("It [fell|jumped|slipped] into the deep snow.")
    tell('{friend} came by with a {look} {animal}. "[What is wrong|Why are you sad|Can I help you]?" asked {friend}.')
    tell('"I lost my {colour} {toy}," [said|cried] {hero}.')
    found = tell.choose(
        animal='The {animal} [ran off|looked around] and found the {colour} {toy} {spot}. "{animal.sound}!" it said.',
        friend="{friend} [ran off|looked around] and found the {colour} {toy} {spot}.",
        nobody="They looked [all day|and looked] but it was gone, so {friend} gave {hero} a {own_colour} {own_toy}.",
        odds=(2, 1, 1),
    )
    tell.alias(helper="animal" if found == "animal" else "friend")
    prize = "{own_colour} {own_toy}" if found == "nobody" else "{colour} {toy}"
    tell("{hero} [hugged|kissed|thanked] {helper.the} and held the " + prize + " [tight|in both hands].")
    tell("They [walked|went|ran] home from the {place} {weather.home}.")
    if found == "animal":
        tell("[A little friend can be a great help.|A friend is never too small to help.]")
    else:
        tell("[A good friend makes a bad day better.|A friend is worth more than a toy.]")


def hungry_animal(tell: Telling) -> None:
    """Whoever shares is helped in return; whoever does not can still make it good."""
    tell('There {hero.he} met a {look} {animal}. "{animal.sound}," it said.')
    tell("It [was hungry|was cold|looked sad|looked ill].")
    deed = tell.choose(
        shared="{hero} gave it [some of|all of] the {food}, and it [was happy|danced|felt better].",
        kept="But {hero} [turned back|laughed|ran off] and ate the {food} alone.",
    )
    if deed == "shared":
        loss = tell.choose(
            path="On the way home from the {place}, {hero} lost the path and was [sad|upset|afraid].",
            toy="On the way home from the {place}, {hero} lost {hero.his} {colour} {toy} and was [sad|upset|afraid].",
        )
        tell('"{animal.sound}!" said someone {spot}. It was the {animal}!')
        if loss == "path":
            tell("It [showed {hero.him} the way|walked in front of {hero.him}] home.")
        else:
            tell("It [gave {hero.him}|had found|brought back] the {colour} {toy}.")
        tell('"Thank you, my friend," said {hero}.')
        tell("{hero.His} {elder} [smiled|was proud] and gave them both some {meal}.")
        tell("[A kind heart makes a friend.|It is good to be kind.]")
    else:
        tell("That night, {hero} thought of the {animal} {weather.out} and [felt bad|cried|was sad|was sorry].")
        tell('"It is never too late to be kind," said {hero.his} {elder}.')
        tell("So {hero} [ran|went] back to the {place} with {meal}, and the {animal} ate it all.")
        tell('"I am sorry," said {hero}. "{animal.sound}," said the {animal}, and they [were friends|played all day].')
        tell("[It is better to share.|It is good to say sorry.]")


def quarrel(tell: Telling) -> None:
    """Two children want one toy: the one who grabs it has to say sorry to the other."""
    greedy = tell.choose(
        hero="{hero} [took it|grabbed it|picked it up] and would not give it to {friend}.",
        friend="{friend} [took it|grabbed it|picked it up] and would not give it to {hero}.",
    )
    tell.alias(greedy=greedy, other="friend" if greedy == "hero" else "hero")
    tell('"[Please let me play|I saw it first|It is mine too]," said {other}.')
    tell('"[No|Never|Go away]!" said {greedy}.')
    tell("They pulled [and pulled|too hard], and the {colour} {toy} broke.")
    tell("{other} hid {spot} and [cried|was sad|was upset].")
    tell("{greedy} felt [bad|sorry|very small], so {greedy.his} {elder} helped {greedy.him} fix it.")
    tell("Then {greedy.he} looked {spot.the}.")
    tell('"I am sorry, {other}. You [may|can] have the {toy}," [said|cried] {greedy}.')
    tell("They [walked|went|ran] home from the {place} {weather.home}.")
    tell("[A toy is more fun when two can play.|It is better to share.]")


def hide_and_seek(tell: Telling) -> None:
    """An animal gives one child away, and then keeps the secret of the other, or does not."""
    tell("{hero} counted to [ten|twenty|fifty], and {friend} hid {spot}.")
    tell("{hero} looked {other_spot} and found a {look} {animal}.")
    tell('"{animal.sound}!" it said, and [ran|went|walked|jumped] to the {spot.noun}.')
    tell("There was {friend}!")
    tell("Then {friend} counted, and {hero} hid {other_spot.the} with the {animal}.")
    end = tell.choose(
        quiet="It [made no sound|did not move|fell asleep], and {friend} could not find {hero.him} [anywhere|at all].",
        loud='"{animal.sound}!" it said, and {friend} found {hero.him} [at once|too soon].',
    )
    winner = "hero" if end == "quiet" else "friend"
    tell.alias(winner=winner, loser="friend" if winner == "hero" else "hero")
    tell('"[You win|You are good at this|Well done], {winner}!" [laughed|said|cried] {loser}.')
    tell("They [walked|went|ran] home from the {place} {weather.home}, and the {animal} followed {winner}.")
    tell("[A game is more fun with a friend.|It is fun to make a friend.]")


def race(tell: Telling) -> None:
    """One child leads and falls; the other stops to help, or wins and is sorry."""
    ahead = tell.choose(
        hero="Soon {hero} was [ahead|far ahead|in front] of {friend}.",
        friend="Soon {friend} was [ahead|far ahead|in front] of {hero}.",
    )
    tell.alias(leader=ahead, chaser="friend" if ahead == "hero" else "hero")
    tell('But {leader.he} {weather.fell} and hurt {leader.his} {limb}. "[Ouch|Oh no|Help], my {limb}!" cried {leader}.')
    deed = tell.choose(
        helped="{chaser} stopped [at once|to help] and put some [water|grass] on the {limb}.",
        ran_on="{chaser} ran [on|past|faster] and won, but felt [bad|sorry|very small].",
    )
    if deed == "helped":
        tell('"[Hold my hand|Lean on me|Take my arm]," said {chaser}, and they [walked|went] to the {place} together.')
        tell("There {leader.his} {elder} gave them both some {food}.")
        tell('"You are a [good|true|great|kind] friend, {chaser}," said {leader}.')
        tell("[A friend is worth more than a race.|It is good to help a friend.]")
    else:
        tell("{chaser.He} [ran|went|walked] back from the {place}.")
        tell('"I am sorry about your {limb}, {leader}," {chaser.he} said.')
        tell('"You came back," said {leader}, and [smiled|took {chaser.his} hand|hugged {chaser.him}].')
        tell("{chaser} helped {leader} home {weather.home}, and {leader.his} {elder} gave them both some {food}.")
        tell("[It is no fun to win alone.|It is never too late to help a friend.]")


def promise(tell: Telling) -> None:
    """A toy is lent until tomorrow; what is said then depends on how the promise was kept."""
    tell('"[Please bring it back|I want it back|I need it again] tomorrow," said {hero}.')
    tell('"I promise, {hero}," said {friend}.')
    tell("{friend} [played|danced|walked around] with {hero}'s {colour} {toy} {place.at} [all day|until dark].")
    result = tell.choose(
        kept="The next day, {friend} [ran|walked|went] to {hero} with the {colour} {toy}.",
        broken="But {friend.he} [dropped it|sat on it|fell on it], and the {toy} broke.",
        forgotten="But {friend} [forgot|fell asleep|did not come] the next day, and {hero} was [sad|upset].",
    )
    if result == "kept":
        tell("It [was|looked] as good as new.")
        tell('"You kept your promise, {friend}," said {hero}. "Next time you may have my {own_colour} {own_toy} too."')
        tell("{friend.His} {elder} [smiled|was proud] and gave them both some {food}.")
        tell("[A good friend keeps a promise.|A promise makes two friends happy.]")
    elif result == "broken":
        tell("{friend} [was afraid|was sad|felt very small], but the next day {friend.he} told {hero} the truth.")
        tell('"I broke your {toy}," said {friend}. "You may have my {own_colour} {own_toy}."')
        tell('"Thank you for the truth," said {hero}, and {hero.his} {elder} helped them fix the {toy}.')
        tell("[It is good to tell the truth.|A true friend tells the truth.]")
    else:
        tell('"Whose {toy} is this?" asked {friend.his} {elder}.')
        tell("{friend} [jumped up|turned red|cried] and ran to {hero}.")
        tell('"I am sorry, {hero}," said {friend}. "Here is your {colour} {toy}."')
        tell('"You came [late|after all]," said {hero}, and [smiled|took {friend.his} hand|hugged {friend.him}].')
        tell("[Better late than never.|It is good to say sorry.]")


def stuck(tell: Telling) -> None:
    """Three children pull in a chain; each then has a part of their own to do."""
    tell('"{animal.sound}!" it [cried|said]. {hero} [called|ran to] {friend}, and {friend} [called|ran to] {third}.')
    tell("{third} held {friend}, {friend} held {hero}, and {hero} held the {animal}.")
    tell('"[Pull|Ready|All together]!" [cried|said|laughed] {third}, and it came [out|free].')
    tell("{hero} [washed|kissed|hugged] it, {friend} gave it some {food}, and {third} gave it a {colour} [coat|hat].")
    keeper = tell.choose(
        hero="The {animal} followed {hero} home from the {place} {weather.home}.",
        friend="The {animal} followed {friend} home from the {place} {weather.home}.",
        third="The {animal} followed {third} home from the {place} {weather.home}.",
    )
    tell.alias(keeper=keeper)
    tell("{keeper.His} {elder} [said it could stay|was happy|laughed], and {keeper} named it {pet_name}.")
    tell("[Together, small hands can do great things.|It is good to pull together.]")


def strange_sound(tell: Telling) -> None:
    """What one child fears, two look at; then the animal needs something, and the right child gives it."""
    tell('"[It is|That is] a {monster}," {hero.he} thought, and ran to {friend}.')
    tell("{friend} [did not believe it|was not afraid|only laughed] and took a {colour} {toy} along.")
    tell("{hero} [held {friend.his} hand|walked behind {friend.him}], and they [looked|went] {spot.the}.")
    tell('There was no {monster}. It was only a {look} {animal}! "{animal.sound}," it said.')
    tell.choose(
        lost="It had lost its way, so they [carried|took|walked] it back to the {place}.",
        hungry="It was hungry, so {hero} gave it some {food}.",
        bored="It was all alone, so {friend} [gave it|let it play with] the {colour} {toy}.",
    )
    tell('"I was afraid of a {animal}!" [laughed|said|cried] {hero}, and they [walked|went|ran] home {weather.home}.')
    tell("[It is good to look again.|A monster may be very small.]")


# Each plot with its first sentence, which follows "One sunny day, Mia".
PLOTS = {
    lost_toy: "took a {colour} {toy} to the {place}.",
    hungry_animal: "took some {food} and [walked|went] to the {place}.",
    quarrel: "and {friend} found a {colour} {toy} {place.at}.",
    hide_and_seek: "played hide and seek with {friend} {place.at}.",
    race: "wanted to race {friend} to the {place}.",
    promise: "lent a {colour} {toy} to {friend}.",
    stuck: "saw a {look} {animal} stuck in the mud {place.at}.",
    strange_sound: "heard a strange sound {spot}.",
}
