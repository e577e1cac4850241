-- extend <topic> <group> <incarnation> <consumer> <position> <delivery> <by>
local function verb()
  local incarnation, consumer = tonumber(ARGV[7]), tonumber(ARGV[8])
  local position, delivery, deadline = tonumber(ARGV[9]), tonumber(ARGV[10]), now + tonumber(ARGV[11])
  local group, topic = find_place(incarnation, consumer, ARGV[5], ARGV[6], position)
  if not group then
    return { 'stale', false }
  end
  local before, cell = answer_before(group, position, consumer, delivery)
  if before then
    return before
  end
  local name = handler(group, consumer)
  unindex(group, cell)
  name = forgive(group, cell) or name
  cell.state, cell.at = IN_FLIGHT, deadline
  save_cell(group, cell)
  hold(group, consumer, name, cell.suspect)
  arm_cell(topic, group, cell, deadline)
  return { 'ok', deadline }
end
