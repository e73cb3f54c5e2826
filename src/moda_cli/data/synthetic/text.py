"""Our own sentences, drawn from template grammars: varied sounds, many labials, no licence."""

import hashlib
import re

from numpy.random import Generator

TEST_SHARE = 0.1  # of all sentences is never spoken in training

# {word} is replaced by an entry of that list of the same language, {number} by English numerals.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "en": (
        "The {adj} {noun} {past} the {noun} {place}.",
        "{name} {past} my {adj} {noun} {place}.",
        "{adv}, we {past} a {noun} and two {nouns} {time}.",
        "Why would {name} and {name} bring {number} {nouns} {place}?",
        "Have you ever {past} {nouns} as {adj} as these?",
        "I do not believe that {nouns} are {adj}.",
        "{name} said: put the {noun} {place}, please.",
        "My {family} always buys {adj} {nouns} {time}.",
        "If the {noun} is {adj}, give it to {name}.",
        "{adj}, {adj} and {adj}: that is what {nouns} should be.",
        "Oh, wow! What a {adj} {noun}!",
        "There were {number} {nouns} {place}, maybe more.",
        "Could you move {number} {nouns} for my {family}?",
        "Nobody {past} the {noun} before {name} came.",
        "We love {nouns}, but {name} prefers {nouns}.",
        "{time}, a {adj} {noun} appeared {place}.",
        "Let me think about the {noun} for a moment.",
        "Yes, {name}, your {noun} looks {adj} {place}.",
        "No, thank you, I have {number} {nouns} already.",
        "Perhaps {name} will {verb} the {adj} {noun} {time}.",
        "You should {verb} it, {verb} it again, and then {verb} the {noun}.",
        "They {verb} {nouns}, we {verb} {nouns}, and you just {verb} mine.",
        "Both of my {nouns} fell {place}.",
        "{name} and my {family} {past} every {noun} {time}.",
    ),
    "de": (
        "{subject} {verb} {object} {place}.",
        "{time} {verb} {subject} {object}.",
        "Warum {verb} {subject} {object} {place}?",
        "Ich glaube, {subject} {verb} {object}.",
    ),
    "fr": (
        "{subject} {verb} {object} {place}.",
        "{time}, {subject} {verb} {object}.",
        "Pourquoi {subject} {verb} {object} {place}?",
        "Je pense que {subject} {verb} {object}.",
    ),
    "es": (
        "{subject} {verb} {object} {place}.",
        "{time}, {subject} {verb} {object}.",
        "¿Por qué {verb} {subject} {object} {place}?",
        "Me parece que {subject} {verb} {object}.",
    ),
    "it": (
        "{subject} {verb} {object} {place}.",
        "{time} {subject} {verb} {object}.",
        "Perché {subject} {verb} {object} {place}?",
        "Mi sembra che {subject} {verb} {object}.",
    ),
    "pt": (
        "{subject} {verb} {object} {place}.",
        "{time}, {subject} {verb} {object}.",
        "Por que {subject} {verb} {object} {place}?",
        "Eu acho que {subject} {verb} {object}.",
    ),
    "nl": (
        "{subject} {verb} {object} {place}.",
        "{time} {verb} {subject} {object}.",
        "Waarom {verb} {subject} {object} {place}?",
        "Volgens mij {verb} {subject} {object}.",
    ),
    "pl": (
        "{subject} {verb} {object} {place}.",
        "{time} {subject} {verb} {object}.",
        "Dlaczego {subject} {verb} {object} {place}?",
        "Myślę, że {subject} {verb} {object}.",
    ),
}
_LISTS: dict[str, dict[str, str]] = {
    "en": {
        "adj": "purple, bumpy, warm, foolish, brave, wooden, cheap, lovely, joyful, smooth, "
        "thick, thin, rough, pale, green, orange, blue, huge, tiny, quiet, awful, marvellous, "
        "measured, empty, mild, vague, royal, muddy, cosy, famous, sharp, wet, beautiful, "
        "impossible, public, simple, happy, peaceful, bitter, yellow, shy, calm, odd, fair, "
        "round, dark, loud, heavy, visible, absurd, feeble, bulky, improper, plump, unusual, "
        "fuzzy, sour, cool, full, raw",
        "noun": "boat, puppy, mother, apple, window, bishop, camera, village, pillow, teacher, "
        "voice, mushroom, bottle, farm, engine, leather jacket, thumb, beach, garage, ship, wolf, "
        "book, umbrella, jungle, measure, bubble, pipe, map, lamp, television, pepper, membrane, "
        "hammer, bridge, avenue, robe, cable, museum, moon, pool, oyster, cow, towel, owl, fire, "
        "chair, island, piano, balloon, vampire, computer, problem, symbol, champion, number, "
        "valley, mouth, tooth, leaf, spoon, cloud, boy, toy, bear, earth, bird, church, nurse, "
        "judge, bomb, cheese",
        "nouns": "maps, bees, wolves, apples, mushrooms, buttons, pebbles, visions, thoughts, "
        "bubbles, moths, waves, boxes, shoes, pumpkins, candles, feathers, judges, fish, parrots, "
        "mice, oaks, months, lamps, robots, memories, problems, coins, flowers, towers, boots, "
        "poems, vegetables, cherries, bulbs, thieves, boys, cups, pans, films, plums, barrels, "
        "potatoes, tables, babies, matches, wheels, onions, gloves, rings, songs, jobs, farms, "
        "umbrellas, kings, hours, ears",
        "past": "moved, bought, painted, found, pushed, lifted, measured, watched, forgot, "
        "bumped, opened, chewed, borrowed, admired, described, avoided, threw, caught, followed, "
        "mapped, dropped, wrapped, showed, wanted, helped, brought, swallowed, enjoyed, imagined, "
        "burned, tamed, numbered, robbed, proved, remembered, gave, bombed, thanked, beat, "
        "sampled, shaved",
        "verb": "move, buy, paint, push, lift, measure, watch, forget, open, chew, borrow, "
        "admire, avoid, throw, catch, follow, drop, wrap, show, help, bring, enjoy, imagine, "
        "burn, remember, give, thank, beat, sample, shave, pour, choose, feed, bake, boil, join, "
        "argue about, touch",
        "place": "by the river, in the kitchen, above the bakery, behind my house, at the beach, "
        "under the old bridge, on top of the pile, near Boston, inside the big room, "
        "through the fog, among the pear trees, over there, in the lobby, beside the pump, "
        "at home, from Birmingham, below the balcony, in the mouth of the cave, around the world, "
        "beyond the marsh, up north, outside, between two poles, along the path, "
        "on the boulevard, from the far shore, in Maine",
        "time": "this morning, last month, tomorrow, on Monday, in February, before supper, "
        "at noon, five minutes ago, every summer, once upon a time, in the afternoon, by and by, "
        "at half past seven, all week, since November, sometimes, after the party, "
        "on my birthday, by then, soon, for a moment, early, at the beginning of autumn, "
        "next Thursday, in the evening, just now",
        "adv": "Actually, Probably, Usually, Finally, Oddly enough, Maybe, By chance, Obviously, "
        "Smoothly, Honestly, In fact, Believe me, For example, Meanwhile, Above all, Of course",
        "name": "Bob, Mary, Paul, Emma, Phoebe, Tom, Abby, Victor, Ruth, George, Sheila, Hugh, "
        "Amy, Philip, Barbara, William, Judy, Oscar, Zoe, Max, Pam, Beth, Joyce, Owen, Maud, "
        "Steve, Irma, Robert, Yvonne, Chuck, Noah, Olivia, Ben, Moira, Arthur, Bella, Hubert, "
        "Thea, Jim, Amber",
        "family": "mother, brother, uncle, grandpa, baby, cousin, aunt, boss, neighbour, wife, "
        "stepmother, best friend, husband, daughter, nephew, partner, lawyer, boyfriend, plumber",
        "number": "two, three, four, five, six, seven, eight, nine, ten, eleven, twelve, fifteen, "
        "twenty, thirty, forty five, fifty, sixty, a hundred, a thousand, about a million, both",
    },
    "de": {
        "subject": "der Bäcker, meine Mutter, unser Papa, die Biene, ein junger Mann, "
        "der Bürgermeister, das Mädchen, die Puppe, mein Freund, der Opa, eine Königin, "
        "der Schüler, Frau Baumann, der kleine Vogel, die Köchin, Herr Möbius, das Baby, "
        "der Maler, unsere Nachbarin, Philipp",
        "verb": "kauft, bemalt, sucht, findet, bewegt, öffnet, liebt, vermisst, bringt, probiert, "
        "mag, beobachtet, wirft, pflückt, schöpft, verschenkt, macht, hebt, fürchtet, empfiehlt, "
        "umarmt",
        "object": "einen Apfel, die Pumpe, das Bild, zwei Bücher, viele Blumen, den Baum, "
        "eine Lampe, das grüne Boot, die Kämme, einen Pfannkuchen, sieben Äpfel, das schöne Haus, "
        "die Möbel, einen Löwen, Himbeeren, die Tür, fünf Briefe, neue Schuhe, den Mond, "
        "süße Pflaumen",
        "place": "im Park, auf dem Berg, beim Bäcker, hinter dem Haus, in Bremen, am Bach, "
        "unter Bäumen, neben der Burg, im Büro, vor dem Bahnhof, in Hamburg, zwischen den Hügeln, "
        "über dem Fluss",
        "time": "heute, am Montag, im Februar, jeden Abend, um fünf Uhr, morgen früh, im Sommer, "
        "manchmal, vor dem Essen, seit November, übermorgen, oft, am Nachmittag, beim Frühstück",
    },
    "fr": {
        "subject": "le boulanger, ma mère, un beau bateau, la petite fille, Philippe, mon voisin, "
        "le jeune homme, une abeille, le vieux marin, Madame Dubois, notre ami, la reine, papa, "
        "le peintre, un lapin blanc, la femme du maire, Sophie, mon chien, le professeur, bébé",
        "verb": "achète, peint, cherche, trouve, bouge, ouvre, aime, emporte, mange, observe, "
        "pousse, prépare, veut, emballe, écoute, choisit, demande, oublie, promet, boit, jette, "
        "imagine",
        "object": "une pomme, la lampe, deux livres, un bon vin, le pain, des fleurs jaunes, "
        "un chapeau, les champignons, une belle robe, le feu, sept œufs, un peu de beurre, "
        "la montagne, du jambon, un bouquet, la pluie, quelque chose, le bonbon, "
        "une vieille voiture, des pommes vertes",
        "place": "au marché, dans le jardin, sous le pont, à Bordeaux, près du moulin, "
        "devant la banque, sur la plage, chez mon oncle, au bord du lac, derrière l'église, "
        "en Bretagne, à l'ombre",
        "time": "ce matin, lundi, en février, chaque soir, à midi, demain, en automne, parfois, "
        "avant le repas, depuis novembre, un beau jour, souvent, tout à l'heure, au printemps",
    },
    "es": {
        "subject": "el panadero, mi madre, un buen hombre, la abuela, Pablo, el bombero, "
        "una mujer, el pequeño lobo, mi primo, la reina, el músico, doña Bárbara, nuestro amigo, "
        "el gato, la paloma, un joven pintor, el jefe, mi vecina, el capitán, Manuel",
        "verb": "compra, pinta, busca, mueve, abre, ama, prepara, mira, empuja, olvida, lleva, "
        "pide, imagina, rompe, bebe, prueba, cambia, guarda, quiere, cambió, encontró, probó, "
        "lavó",
        "object": "una manzana, el bote, dos libros, muchas flores, un sombrero, la lámpara, "
        "el pan, siete huevos, una bombilla, el mapa, la guitarra, un vaso de agua, el vino, "
        "una paloma, las llaves, el jamón, un problema, la ventana, mucho pescado, "
        "nueve pimientos",
        "place": "en el parque, bajo el puente, en Bilbao, por la mañana, junto al río, "
        "en la plaza, cerca del mar, en mi barrio, sobre la mesa, detrás del museo, en el pueblo, "
        "por aquí",
        "time": "hoy, el lunes, en febrero, a veces, mañana, en verano, antes de comer, siempre, "
        "a las nueve, desde noviembre, por la noche, de vez en cuando, ayer, en septiembre",
    },
    "it": {
        "subject": "il panettiere, mia mamma, un bambino, la nonna, Giuseppe, il pompiere, "
        "una donna, il piccolo lupo, mio zio, la regina, il pittore, Barbara, il nostro amico, "
        "il gatto, la colomba, un giovane medico, il capo, la vicina, il babbo, Umberto",
        "verb": "compra, prova, cerca, muove, apre, ama, prepara, guarda, spinge, dimentica, "
        "porta, immagina, rompe, beve, cambia, vuole, mangia, sceglie, trovò, chiamò, dipinge, "
        "sbuccia",
        "object": "una mela, la barca, due libri, molti fiori, un cappello, la lampada, il pane, "
        "sette uova, il pomodoro, la mappa, gli gnocchi, un bicchiere d'acqua, il vino, "
        "la tromba, le chiavi, un bel problema, la finestra, il pesce, nove peperoni, l'ombrello",
        "place": "nel parco, sotto il ponte, a Bologna, vicino al fiume, in piazza, al mare, "
        "a Palermo, sopra il tavolo, dietro il museo, in campagna, sulla spiaggia, in montagna, "
        "nel bosco",
        "time": "oggi, lunedì, a febbraio, qualche volta, domani, d'estate, prima di cena, "
        "sempre, alle nove, da novembre, la sera, ogni tanto, ieri, a settembre, all'improvviso",
    },
    "pt": {
        "subject": "o padeiro, minha mãe, um bom homem, a avó, Paulo, o bombeiro, uma mulher, "
        "o pequeno lobo, meu primo, a rainha, o músico, dona Beatriz, nosso amigo, o gato, "
        "a pomba, um jovem pintor, o chefe, minha vizinha, o capitão, João",
        "verb": "compra, pinta, busca, move, abre, ama, prepara, olha, empurra, esquece, leva, "
        "pede, imagina, quebra, bebe, prova, muda, guarda, quer, encontrou, comeu, perdeu, lavou",
        "object": "uma maçã, o barco, dois livros, muitas flores, um chapéu, a lâmpada, o pão, "
        "sete ovos, uma bomba, o mapa, o violão, um copo de água, o vinho, uma pomba, as chaves, "
        "o feijão, um problema, a janela, muito peixe, nove pimentões",
        "place": "no parque, embaixo da ponte, em Lisboa, perto do rio, na praça, na praia, "
        "no bairro, em cima da mesa, atrás do museu, no campo, por aqui, na montanha, "
        "em São Paulo",
        "time": "hoje, na segunda, em fevereiro, às vezes, amanhã, no verão, antes do jantar, "
        "sempre, às nove, desde novembro, à noite, de manhã, ontem, em setembro",
    },
    "nl": {
        "subject": "de bakker, mijn moeder, een jonge man, oma, Pim, de burgemeester, een vrouw, "
        "de kleine wolf, mijn broer, de koningin, de schilder, mevrouw De Boer, onze vriend, "
        "de poes, de duif, een oude visser, de baas, mijn buurvrouw, papa, het meisje",
        "verb": "koopt, verft, zoekt, vindt, beweegt, opent, bewaart, mist, brengt, proeft, "
        "maakt, bekijkt, gooit, plukt, vergeet, pakt, wil, breekt, drinkt, bouwt, omhelst, helpt, "
        "kiest",
        "object": "een appel, de boot, twee boeken, veel bloemen, een hoed, de lamp, het brood, "
        "zeven eieren, de pomp, een mooi huis, de fiets, vijf pannenkoeken, het vuur, de bijen, "
        "een brief, nieuwe schoenen, de maan, de boom, zoete pruimen, het schip",
        "place": "in het park, op de berg, bij de bakker, achter het huis, in Breda, "
        "aan het water, onder de brug, naast de kerk, op kantoor, voor het station, in Groningen, "
        "bij ons thuis",
        "time": "vandaag, op maandag, in februari, elke avond, om vijf uur, morgen, in de zomer, "
        "soms, voor het eten, sinds november, overmorgen, vaak, in de middag, bij het ontbijt",
    },
    "pl": {
        "subject": "piekarz, moja mama, młody człowiek, babcia, Paweł, burmistrz, pewna kobieta, "
        "mały wilk, mój brat, królowa, malarz, pani Barbara, nasz przyjaciel, kot, gołąb, "
        "stary rybak, kapitan, moja sąsiadka, tata, dziewczynka",
        "verb": "kupuje, maluje, szuka, widzi, przesuwa, otwiera, kocha, pamięta, przynosi, "
        "próbuje, robi, ogląda, rzuca, zbiera, zapomina, pakuje, chce, łamie, pije, buduje, myje, "
        "wybiera",
        "object": "jabłko, łódź, dwie książki, kwiaty, kapelusz, lampę, chleb, siedem jajek, "
        "pompę, piękny dom, rower, grzyby, ogień, pszczoły, list, nowe buty, księżyc, drzewo, "
        "śliwki, mapę",
        "place": "w parku, pod mostem, u piekarza, za domem, w Bydgoszczy, nad wodą, w górach, "
        "obok muzeum, w biurze, przed dworcem, we Wrocławiu, na plaży, w kuchni",
        "time": "dzisiaj, w poniedziałek, w lutym, co wieczór, o piątej, jutro, latem, czasem, "
        "przed obiadem, od listopada, często, po południu, przy śniadaniu, wczoraj",
    },
}
WORDS = {
    language: {name: tuple(words.split(", ")) for name, words in lists.items()}
    for language, lists in _LISTS.items()
}
LANGUAGES = tuple(TEMPLATES)


def is_test(text: str) -> bool:
    """Whether a sentence belongs to the test split: a property of its text alone."""
    return hashlib.sha256(text.encode()).digest()[0] < TEST_SHARE * 256


def sentence(language: str, rng: Generator, test: bool) -> str:
    """A sentence of the train or test split."""
    words = WORDS[language]

    def pick(match: re.Match[str]) -> str:
        choices = words[match[1]]
        return choices[rng.integers(len(choices))]

    while True:
        template = TEMPLATES[language][rng.integers(len(TEMPLATES[language]))]
        text = re.sub(r"\{(\w+)\}", pick, template)
        text = re.sub(r"\b([Aa]) (?=[aeioAEIO])", r"\1n ", text) if language == "en" else text
        text = text[0].upper() + text[1:]
        if is_test(text) == test:
            return text
