"""English idioms, each with what it means and what its words say. The meanings are our own wording."""

from __future__ import annotations

import functools
from typing import Literal

from tombola.data.text.items import Item, TextTask, chance_of, drawn

Reading = Literal["literal", "idiomatic"]
IDIOMS = """
add fuel to the fire | make it worse | put wood on flames
bark up the wrong tree | be mistaken | howl at an oak
beat around the bush | avoid the point | strike near a shrub
bend over backwards | try very hard | arch the spine
bite the bullet | bear the pain | chew on metal
blow off steam | calm down | let out vapour
break the ice | make people talk | crack frozen water
bring home the bacon | earn money | carry some pork
burn the midnight oil | work late | light a lamp
bury the hatchet | make peace | put an axe in the ground
call it a day | stop working | name the hours
clear the air | settle a quarrel | open a window
climb the walls | be restless | go up the bricks
cross that bridge | solve it later | walk over the river
cry over spilt milk | regret the past | weep at a wet floor
cut corners | work badly | trim the edges
draw a blank | remember nothing | sketch empty space
drop the ball | make a mistake | let a toy fall
eat humble pie | say sorry | taste a cake
face the music | take the blame | look at the band
foot the bill | pay for it | stand on a paper
get cold feet | lose courage | have icy toes
go with the flow | do as others do | swim down the river
grease the wheels | help things along | oil the cart
hang by a thread | be in danger | dangle on a string
hit the books | study hard | slap the pages
hit the roof | get angry | knock on the tiles
hit the sack | go to bed | punch a bag
hold your horses | wait a while | grip your mares
jump on the bandwagon | follow the crowd | board a cart
jump the gun | start too soon | leap over a rifle
kick the bucket | die | strike a pail
kill two birds with one stone | gain twice | hunt with a rock
lend an ear | listen | give a body part
let the cat out of the bag | tell a secret | free an animal
lose your marbles | go mad | mislay glass toys
miss the boat | come too late | not catch the ship
move the goalposts | change the rules | carry two poles
open a can of worms | start a mess | unseal some bait
paint the town red | celebrate | colour the houses
pass the buck | blame another | hand over a deer
play with fire | take a risk | touch the flames
pour cold water on it | discourage it | make it wet
pull his leg | tease him | tug at his limb
push the envelope | go to the limit | shove some paper
ring a bell | sound familiar | make a chime
rock the boat | cause trouble | shake the ship
see red | be furious | notice a colour
sit on the fence | not decide | rest on a rail
skate on thin ice | take chances | glide on a pond
smell a rat | be suspicious | notice a rodent
spill the beans | tell a secret | drop the food
steal the show | win all praise | rob a theatre
take the cake | be the worst | carry off a dessert
throw in the towel | give up | toss a cloth
tie the knot | get married | fasten a rope
turn over a new leaf | start afresh | flip a plant
turn the tables | swap the roles | spin the desks
walk on eggshells | be careful | step on shells
weather the storm | survive trouble | stay in the rain
"""
TRAIN = ("Anna will {}.", "He may {}.", "Do not {}!", "They had to {}.", "Must I {}?", "We never {}.", "Why {}?")
HELD_OUT = ("You should {}.", "Let us {}.", "Tom did {}.", "Who would {}?", "I shall {}.", "Can she {}?")
ABOUT: dict[Reading, str] = {
    "literal": "what the words of an idiom say",
    "idiomatic": "what an idiom means",
}


@functools.cache
def idioms() -> tuple[tuple[str, str, str], ...]:
    """(idiom, what it means, what its words say) of every one."""
    return tuple((a, b, c) for a, b, c in (line.split(" | ") for line in IDIOMS.strip().splitlines()))


def readings(reading: Reading, seed: int, train: int, held_out: int) -> TextTask:
    """Sentences with an idiom, and what it means or what its words say.

    Both parts know every idiom, in different sentences; a sentence that one reading holds out no reading trains on.
    """
    first, last = (
        drawn(_sentences(reading, templates), count, chance_of(seed, "idioms", part), f"the task {reading}")
        for part, templates, count in (("train", TRAIN, train), ("held_out", HELD_OUT, held_out))
    )
    return TextTask(reading, ABOUT[reading], first, last)


def _sentences(reading: Reading, templates: tuple[str, ...]) -> list[Item]:
    return [
        Item(f"{template.format(idiom)} That is to", f" {means if reading == 'idiomatic' else says}.")
        for idiom, means, says in idioms()
        for template in templates
    ]
