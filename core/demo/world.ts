/**
 * The demo's closed world: the people, things and facts that its problems and stories speak of. The facts are true of
 * the real world too, so that nothing in a demo answer is wrong to a reader.
 */

/** A person, with the pronouns that refer to them. */
export interface Person {
  name: string;
  she: 'she' | 'he';
  her: 'her' | 'his';
}

/** A countable thing: one of it, many of it. */
export interface Thing {
  one: string;
  many: string;
}

const girls =
  'Mia Anna Emma Lucy Nora Ella Rosa Clara Ivy Lily Maya Zoe Alice Sara Nina Lena Ruth Grace Julia Eva Hanna Ida Carla Dora Fiona Greta Helen Iris Jane Kate Laura Maria Olga Paula Rita Sofia Tina Vera Wendy Yuki Amina Priya Leila Mei';
const boys =
  'Tom Ben Max Leo Sam Jack Noah Finn Omar Paul Adam Luke Hugo Ivan Karl Liam Mark Nick Oscar Peter Ravi Simon Theo Victor Will Yusuf Alex Bruno Carlos David Erik Felix George Henry Igor Jonas Kevin Louis Martin Nils Otto Rafael Stefan Chen';

/** Everyone who appears in the demo's text. */
export const people: readonly Person[] = [
  ...girls.split(' ').map((name): Person => ({ name, she: 'she', her: 'her' })),
  ...boys.split(' ').map((name): Person => ({ name, she: 'he', her: 'his' })),
];

const regular =
  'apple pear orange lemon plum banana egg nut carrot onion potato:potatoes tomato:tomatoes cookie cake muffin sandwich:sandwiches candle book pencil pen ruler notebook stamp card coin button bead marble shell stone stick flower rose tulip seed leaf:leaves ball kite doll toy puzzle balloon hat scarf:scarves glove sock shirt ribbon cup plate bowl spoon jar bottle basket lamp chair map ticket photo picture sticker magnet key box:boxes brick block nail rope feather badge';

/** Things that people of the demo collect, buy, lose and give away. */
export const things: readonly Thing[] = regular.split(' ').map((word) => {
  const [one = '', many] = word.split(':');
  return { one, many: many ?? `${one}s` };
});

/** Containers, for "so many in each". */
export const containers: readonly Thing[] = [
  'box:boxes',
  'bag',
  'basket',
  'jar',
  'shelf:shelves',
  'drawer',
  'tray',
  'crate',
  'pack',
  'row',
  'bucket',
  'tin',
].map((word) => {
  const [one = '', many] = word.split(':');
  return { one, many: many ?? `${one}s` };
});

/** Colours that things of the demo have. */
export const colours: readonly string[] = [
  'red',
  'blue',
  'green',
  'yellow',
  'white',
  'black',
  'brown',
  'orange',
  'purple',
  'pink',
  'grey',
  'gold',
];

/** Where things happen; each with its article and preposition. */
export const places: readonly string[] = [
  'in the park',
  'in the garden',
  'at school',
  'in the kitchen',
  'at the market',
  'in the library',
  'at the beach',
  'in the forest',
  'on the farm',
  'at the station',
  'in the museum',
  'by the river',
  'in the shop',
  'at the lake',
  'on the bus',
  'in the attic',
  'at the harbour',
  'under the bridge',
  'behind the house',
  'near the tower',
];

/** Where things lie or hide. */
export const spots: readonly string[] = [
  'under the bed',
  'on the table',
  'in the drawer',
  'behind the door',
  'on the shelf',
  'in the box',
  'under the chair',
  'in the bag',
  'near the window',
  'on the roof',
  'in the cupboard',
  'behind the tree',
  'under the bench',
  'in the basket',
  'beside the lamp',
  'on the stairs',
];

/** Weekdays in order. */
export const days: readonly string[] = [
  'Monday',
  'Tuesday',
  'Wednesday',
  'Thursday',
  'Friday',
  'Saturday',
  'Sunday',
];

/** Jobs with their article. */
export const jobs: readonly string[] = [
  'a baker',
  'a teacher',
  'a doctor',
  'a farmer',
  'a painter',
  'a pilot',
  'a nurse',
  'a driver',
  'a cook',
  'a singer',
  'a builder',
  'a writer',
  'a gardener',
  'a dentist',
  'a tailor',
  'an engineer',
];

/** [country, capital] */
export const capitals: readonly (readonly [string, string])[] = [
  ['France', 'Paris'],
  ['Italy', 'Rome'],
  ['Spain', 'Madrid'],
  ['Germany', 'Berlin'],
  ['Norway', 'Oslo'],
  ['Sweden', 'Stockholm'],
  ['Finland', 'Helsinki'],
  ['Denmark', 'Copenhagen'],
  ['Poland', 'Warsaw'],
  ['Austria', 'Vienna'],
  ['Greece', 'Athens'],
  ['Portugal', 'Lisbon'],
  ['Ireland', 'Dublin'],
  ['Hungary', 'Budapest'],
  ['Japan', 'Tokyo'],
  ['China', 'Beijing'],
  ['India', 'New Delhi'],
  ['Egypt', 'Cairo'],
  ['Kenya', 'Nairobi'],
  ['Peru', 'Lima'],
  ['Chile', 'Santiago'],
  ['Cuba', 'Havana'],
  ['Canada', 'Ottawa'],
  ['Iceland', 'Reykjavik'],
];

/** [thing with article, its colour] */
export const thingColours: readonly (readonly [string, string])[] = [
  ['the sky on a clear day', 'blue'],
  ['grass', 'green'],
  ['snow', 'white'],
  ['coal', 'black'],
  ['a ripe banana', 'yellow'],
  ['a ripe tomato', 'red'],
  ['a lemon', 'yellow'],
  ['milk', 'white'],
  ['chocolate', 'brown'],
  ['a carrot', 'orange'],
  ['a leaf in spring', 'green'],
  ['an elephant', 'grey'],
  ['a flamingo', 'pink'],
  ['blood', 'red'],
  ['a raven', 'black'],
  ['salt', 'white'],
  ['a frog', 'green'],
  ['an eggplant', 'purple'],
  ['a sunflower', 'yellow'],
  ['a fire engine', 'red'],
];

/** What the demo knows about one animal. */
export interface Animal extends Thing {
  legs: number;
  sound: string;
  young: string;
  eats: string;
  home: string;
}

const animalRows: readonly (readonly [string, string, number, string, string, string, string])[] = [
  ['cat', 'cats', 4, 'meow', 'kitten', 'fish', 'house'],
  ['dog', 'dogs', 4, 'bark', 'puppy', 'meat', 'kennel'],
  ['cow', 'cows', 4, 'moo', 'calf', 'grass', 'barn'],
  ['horse', 'horses', 4, 'neigh', 'foal', 'hay', 'stable'],
  ['sheep', 'sheep', 4, 'bleat', 'lamb', 'grass', 'fold'],
  ['pig', 'pigs', 4, 'oink', 'piglet', 'roots', 'sty'],
  ['hen', 'hens', 2, 'cluck', 'chick', 'grain', 'coop'],
  ['duck', 'ducks', 2, 'quack', 'duckling', 'plants', 'pond'],
  ['lion', 'lions', 4, 'roar', 'cub', 'meat', 'den'],
  ['bee', 'bees', 6, 'buzz', 'larva', 'nectar', 'hive'],
  ['owl', 'owls', 2, 'hoot', 'owlet', 'mice', 'nest'],
  ['frog', 'frogs', 4, 'croak', 'tadpole', 'insects', 'pond'],
  ['mouse', 'mice', 4, 'squeak', 'pup', 'seeds', 'hole'],
  ['goat', 'goats', 4, 'bleat', 'kid', 'leaves', 'barn'],
  ['wolf', 'wolves', 4, 'howl', 'pup', 'meat', 'den'],
  ['goose', 'geese', 2, 'honk', 'gosling', 'grass', 'pond'],
];

/** The animals of the demo with their facts. */
export const animals: readonly Animal[] = animalRows.map(([one, many, legs, sound, young, eats, home]) => ({
  one,
  many,
  legs,
  sound,
  young,
  eats,
  home,
}));

/** Words by what they name; no word is in two lists. */
export const categories: Readonly<Record<string, readonly string[]>> = {
  fruits: 'apple pear plum banana cherry grape mango peach melon lemon'.split(' '),
  animals: 'cat dog horse tiger rabbit eagle whale snake mouse camel'.split(' '),
  colours: 'red blue green yellow purple white black brown pink grey'.split(' '),
  tools: 'hammer saw drill wrench shovel rake axe pliers chisel ladder'.split(' '),
  clothes: 'shirt coat scarf sock glove hat jacket skirt boot belt'.split(' '),
  vehicles: 'car bus train truck bicycle tram ship plane tractor van'.split(' '),
  instruments: 'piano violin drum flute guitar harp trumpet cello organ banjo'.split(' '),
  drinks: 'water milk tea coffee juice cocoa lemonade soda cider broth'.split(' '),
  furniture: 'table chair sofa desk bed shelf bench stool cupboard wardrobe'.split(' '),
  vegetables: 'carrot onion potato cabbage leek spinach pea turnip celery radish'.split(' '),
};

/** What one member of a category is called, with its article. */
export const categoryNoun: Readonly<Record<string, string>> = {
  fruits: 'a fruit',
  animals: 'an animal',
  colours: 'a colour',
  tools: 'a tool',
  clothes: 'a piece of clothing',
  vehicles: 'a vehicle',
  instruments: 'an instrument',
  drinks: 'a drink',
  furniture: 'a piece of furniture',
  vegetables: 'a vegetable',
};

/** Words for lists to sort, reverse, count and spell: plain lower-case nouns. */
export const words: readonly string[] = [
  ...new Set(
    (
      'arm ball cloud door earth fire garden hill ice jar king lake moon night ocean park queen river sand tree uncle valley wind yard zebra ' +
      'ant bread candle dream eagle farm ghost house island jungle kite lamp mountain needle onion paper quilt road star table umbrella village window yoghurt zoo ' +
      'air bell cup drum egg flag glass hand ink jewel key letter map nest owl pen quarry rain ship tent urn violin wall year zone ' +
      'apple bird castle desert engine forest giant hammer insect joke knife ladder mirror number oven planet question rocket school tower uniform vase water yarn zip ' +
      'autumn bridge coat duck elbow field gate horse idea juice kitchen lion milk nose orange pillow rabbit sugar train unit voice wolf box'
    ).split(' '),
  ),
];

/** [word, its opposite]; read in both directions. */
export const opposites: readonly (readonly [string, string])[] = [
  ['hot', 'cold'],
  ['big', 'small'],
  ['fast', 'slow'],
  ['happy', 'sad'],
  ['day', 'night'],
  ['up', 'down'],
  ['open', 'closed'],
  ['full', 'empty'],
  ['wet', 'dry'],
  ['old', 'new'],
  ['long', 'short'],
  ['hard', 'soft'],
  ['light', 'dark'],
  ['early', 'late'],
  ['clean', 'dirty'],
  ['rich', 'poor'],
  ['strong', 'weak'],
  ['left', 'right'],
  ['loud', 'quiet'],
  ['near', 'far'],
  ['high', 'low'],
  ['thick', 'thin'],
  ['wide', 'narrow'],
  ['sweet', 'bitter'],
  ['inside', 'outside'],
  ['first', 'last'],
  ['true', 'false'],
  ['buy', 'sell'],
  ['push', 'pull'],
  ['win', 'lose'],
];

/** A verb with the rest of its sentence: base form, third person, past. */
export interface Action {
  base: string;
  third: string;
  past: string;
  /** What follows the verb. */
  rest: readonly string[];
}

const actionRows: readonly (readonly [string, string, string, string])[] = [
  ['walk', 'walks', 'walked', 'to the park|to school|along the river|home with a friend'],
  ['play', 'plays', 'played', 'the piano|chess with a friend|in the garden|football after school'],
  ['paint', 'paints', 'painted', 'the old fence|a picture of the sea|the kitchen wall'],
  ['cook', 'cooks', 'cooked', 'soup for the family|rice and beans|dinner at home'],
  ['clean', 'cleans', 'cleaned', 'the windows|the kitchen|the old bicycle'],
  ['open', 'opens', 'opened', 'the blue box|the window|the letter from home'],
  ['visit', 'visits', 'visited', 'the museum|an old friend|the farm by the lake'],
  ['watch', 'watches', 'watched', 'the birds|a film about whales|the boats in the harbour'],
  ['carry', 'carries', 'carried', 'the heavy bag|two boxes upstairs|a basket of apples'],
  ['plant', 'plants', 'planted', 'a small tree|roses near the gate|beans in the garden'],
  ['write', 'writes', 'wrote', 'a long letter|a story about a lion|the names on the cards'],
  ['read', 'reads', 'read', 'a book about stars|the map|a poem to the class'],
  ['eat', 'eats', 'ate', 'a red apple|bread and cheese|breakfast on the balcony'],
  ['drink', 'drinks', 'drank', 'a cup of tea|cold water|warm milk'],
  ['see', 'sees', 'saw', 'a white horse|a rainbow over the hill|the train'],
  ['find', 'finds', 'found', 'a gold coin|the lost key|a shell on the beach'],
  ['buy', 'buys', 'bought', 'a new hat|fresh bread|three lemons at the market'],
  ['sing', 'sings', 'sang', 'an old song|in the choir|to the baby'],
  ['make', 'makes', 'made', 'a paper kite|a cake with nuts|a list of names'],
  ['swim', 'swims', 'swam', 'in the lake|across the river|with the ducks'],
  ['draw', 'draws', 'drew', 'a map of the island|a big castle|a cat on the wall'],
  ['ride', 'rides', 'rode', 'a brown horse|the bus to town|a red bicycle'],
];

/** What people of the demo do. */
export const actions: readonly Action[] = actionRows.map(([base, third, past, rest]) => ({
  base,
  third,
  past,
  rest: rest.split('|'),
}));

/** "a" or "an", by the first letter: enough for the words of this world. */
export function article(word: string): string {
  return 'aeiou'.includes(word.charAt(0)) ? 'an' : 'a';
}

/** The word with its article, as in "an egg". */
export function withArticle(word: string): string {
  return `${article(word)} ${word}`;
}

/** The text with its first letter in upper case. */
export function capitalise(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** "a, b and c". */
export function listed(items: readonly string[]): string {
  return items.length < 2
    ? (items[0] ?? '')
    : `${items.slice(0, -1).join(', ')} and ${items[items.length - 1]}`;
}
