-- Groups: what each has done with the events of its topic.
--
-- `g:<incarnation>` is a hash: `state`; `m<consumer>` a member; `p<n>` a page of 32 cells, one for each position that was
-- handed out; `x<position>` what a cell has no room for; `r<position>` a dead letter that came back, with its event.
-- `ready:`, `suspects:` and `due:` are indices of cells, `w:` is the queue of members that wait.

local GROUP = '>I7I7I7I7I4I4I4I4I4I4I7I7I4I4BBHc0Hc0'
-- timeout, prefetch, in flight, suspects, gone, done, ticket and size of the wait (or 0), name, channel; then answers
local MEMBER = '>I7I4I4I2BI7I7I4Hc0Hc0'

-- state, flags, consumer, delivery, born, attempts, since, at
local CELL = '>BBI7I4I4I2I7I7'
local CELL_BYTES = 33
local PAGE = 32
local IN_FLIGHT, DELAYED, READY, ACKED, COMMITTED, DEAD, LOST = 1, 2, 3, 4, 5, 6, 7
local INFO = '>I7I4I2I7'

local function blank()
  return string.rep('\0', PAGE * CELL_BYTES)
end

local function unpack_group(incarnation, packed)
  local group = { incarnation = incarnation, key = P .. 'g:' .. int(incarnation), packed = packed }
  local expired, gaps
  group.cursor, group.floor, group.first, group.lost, group.deliveries, group.members, group.in_flight, group.returning,
    group.ready, group.suspects, group.idle, group.due, group.waiting, group.revived, expired, gaps, group.name, group.topic =
    struct.unpack(GROUP, packed)
  group.expired = expired == 1
  group.gaps = gaps > 0 and cmsgpack.unpack(call('HGET', group.key, 'gaps')) or {}
  return group
end

local function pack_group(group)
  return struct.pack(GROUP, group.cursor, group.floor, group.first, group.lost, group.deliveries, group.members,
    at_least(group.in_flight, 0), group.returning, group.ready, group.suspects, group.idle, group.due, group.waiting,
    group.revived, group.expired and 1 or 0, at_most(#group.gaps, 255), #group.name, group.name, #group.topic, group.topic)
end

local function unpack_member(packed)
  local member, gone, ticket, max, place = {}, nil, nil, nil, nil
  member.timeout, member.prefetch, member.in_flight, member.suspects, gone, member.done, ticket, max, member.name,
    member.channel, place = struct.unpack(MEMBER, packed)
  member.gone, member.wait = gone == 1, ticket > 0 and { ticket, max }
  member.answers = place <= #packed and cmsgpack.unpack(string.sub(packed, place)) or {}
  return member
end

local function pack_member(member)
  local wait = member.wait or { 0, 0 }
  local packed = struct.pack(MEMBER, member.timeout, member.prefetch, at_least(member.in_flight, 0),
    at_least(member.suspects, 0), member.gone and 1 or 0, member.done, wait[1], wait[2], #member.name, member.name,
    #member.channel, member.channel)
  return #member.answers > 0 and packed .. cmsgpack.pack(member.answers) or packed
end

-- A group with a member and the pages of some positions, all read at once.
local function find_group(incarnation, consumer, from, to)
  local group = groups[incarnation]
  if group ~= nil then
    return group
  end
  local fields, first, last = { 'state', 'm' .. int(consumer or 0) }, 1, 0
  if from then
    first = math.floor(from / PAGE)
    last = at_most(math.floor((to or from) / PAGE), first + 20)
    for page = first, last do
      fields[#fields + 1] = 'p' .. int(page)
    end
  end
  local values = call('HMGET', P .. 'g:' .. int(incarnation), unpack(fields))
  if not values[1] then
    groups[incarnation] = false
    return false
  end
  group = unpack_group(incarnation, values[1])
  group.recorded = group.floor
  group.pages, group.loaded_members, group.extras, group.letters, group.changed, group.removed = {}, {}, {}, {}, {}, {}
  if consumer then
    group.loaded_members[consumer] = values[2] and unpack_member(values[2]) or false
  end
  for page = first, last do
    group.pages[page] = values[3 + page - first] or blank()
  end
  groups[incarnation] = group
  return group
end

local function change(group, field, value)
  group.changed[field], group.removed[field] = value, nil
end

local function remove(group, field)
  group.changed[field], group.removed[field] = nil, true
end

local function find_member(group, consumer)
  local member = group.loaded_members[consumer]
  if member == nil then
    local packed = call('HGET', group.key, 'm' .. int(consumer))
    member = packed and unpack_member(packed) or false
    group.loaded_members[consumer] = member
  end
  return member
end

local function save_member(group, consumer, member)
  if member.gone and member.in_flight <= 0 then
    group.loaded_members[consumer] = false
    remove(group, 'm' .. int(consumer))
  else
    group.loaded_members[consumer] = member
    change(group, 'm' .. int(consumer), member)
  end
end

local function page_of(group, position)
  local nth = math.floor(position / PAGE)
  local page = group.pages[nth]
  if not page then
    page = call('HGET', group.key, 'p' .. int(nth)) or blank()
    group.pages[nth] = page
  end
  return page, nth, (position % PAGE) * CELL_BYTES
end

-- Writes one cell into `count` positions from `from` on.
local function fill(group, from, count, raw)
  while count > 0 do
    local page, nth, offset = page_of(group, from)
    local n = at_most(count, PAGE - from % PAGE)
    page = string.sub(page, 1, offset) .. string.rep(raw, n) .. string.sub(page, offset + n * CELL_BYTES + 1)
    group.pages[nth] = page
    change(group, 'p' .. int(nth), page)
    from, count = from + n, count - n
  end
end

local function raw_cell(group, position)
  local page, _, offset = page_of(group, position)
  return string.sub(page, offset + 1, offset + CELL_BYTES)
end

-- A dead letter that came back: its cell and its event.
local function find_letter(group, position)
  if group.revived == 0 then
    return false
  end
  local letter = group.letters[position]
  if letter == nil then
    local packed = call('HGET', group.key, 'r' .. int(position))
    letter = packed and cmsgpack.unpack(packed) or false
    group.letters[position] = letter
  end
  return letter
end

-- The way of one event through the group, or nil where it was never handed out or is forgotten.
local function find_cell(group, position)
  local letter = find_letter(group, position)
  if not letter and (position < group.first or position >= group.cursor) then
    return nil
  end
  local raw = letter and letter[1] or raw_cell(group, position)
  local cell = { position = position, letter = letter }
  cell.state, cell.flags, cell.consumer, cell.delivery, cell.born, cell.attempts, cell.since, cell.at =
    struct.unpack(CELL, raw)
  if cell.state == 0 then
    return nil
  end
  cell.extra, cell.suspect = cell.flags >= 2, cell.flags % 2 == 1
  return cell
end

local function save_cell(group, cell)
  local flags = (cell.suspect and 1 or 0) + (cell.extra and 2 or 0)
  local raw = struct.pack(CELL, cell.state, flags, cell.consumer, cell.delivery, cell.born, cell.attempts, cell.since,
    cell.at)
  if cell.letter then
    cell.letter[1] = raw
    group.letters[cell.position] = cell.letter
    change(group, 'r' .. int(cell.position), cell.letter)
  else
    fill(group, cell.position, 1, raw)
  end
end

-- What a cell has no room for: the history `h`, what a commit `said` and answered (`out`).
-- A failure is {delivery, consumer, name, started, ended, kind, reason, retry_at, death}.
local function find_extra(group, cell)
  local extra = group.extras[cell.position]
  if not extra then
    local packed = cell.extra and call('HGET', group.key, 'x' .. int(cell.position))
    extra = packed and cmsgpack.unpack(packed) or { h = {} }
    group.extras[cell.position] = extra
  end
  return extra
end

local function save_extra(group, cell, extra)
  cell.extra = true
  group.extras[cell.position] = extra
  change(group, 'x' .. int(cell.position), extra)
end

local function is_settled(cell)
  return cell.state >= ACKED
end

local function is_suspicious(failure)
  return failure[6] == 'timed_out' or failure[6] == 'lost'
end
